package rest

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// local connects the gateway, and calls by other protocols, to services in the same process. It is both the
// [grpc.ServiceRegistrar] of the services and the [grpc.ClientConnInterface] of their clients, and calls handlers
// through the interceptor, without a network. The in-process mode of grpc-gateway itself would skip the interceptor.
//
// A handler gets the context of the caller with its values, among them the peer and the incoming metadata.
type local struct {
	interceptor grpc.UnaryServerInterceptor
	// methods is keyed by "/package.Service/Method".
	methods map[string]method
}

// method is a handler and the service that it belongs to.
type method struct {
	service any
	handler grpc.MethodHandler
}

// RegisterService implements [grpc.ServiceRegistrar] for unary methods.
func (l *local) RegisterService(desc *grpc.ServiceDesc, service any) {
	for _, m := range desc.Methods {
		l.methods["/"+desc.ServiceName+"/"+m.MethodName] = method{service, m.Handler}
	}
}

// Invoke implements [grpc.ClientConnInterface].
func (l *local) Invoke(ctx context.Context, name string, request, reply any, _ ...grpc.CallOption) error {
	answer, err := l.call(ctx, name, func(into any) error {
		proto.Merge(into.(proto.Message), request.(proto.Message)) //nolint:forcetypeassert // generated code passes messages
		return nil
	})
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), answer.(proto.Message)) //nolint:forcetypeassert // generated code passes messages
	return nil
}

// call runs a method, whose request decode puts into a message. ctx has the incoming metadata.
func (l *local) call(ctx context.Context, name string, decode func(message any) error) (answer any, err error) {
	m, ok := l.methods[name]
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "unknown method %s", name)
	}
	return m.handler(m.service, ctx, decode, l.interceptor)
}

// NewStream implements [grpc.ClientConnInterface]. It always fails, because no method that is served over REST streams.
func (*local) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("rest: streams are not supported")
}
