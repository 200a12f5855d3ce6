package rest

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// local is a connection to services in the same process: services are registered with it as with a server, and called
// through it as through a client, by way of the interceptor and without a network. The gateway's own in-process mode
// would leave the interceptor out.
//
// The context that a handler sees carries what the caller put there, the peer included; only the metadata turns from
// outgoing to incoming.
type local struct {
	interceptor grpc.UnaryServerInterceptor
	// methods has "/package.Service/Method" → its handler.
	methods map[string]method
}

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
	m, ok := l.methods[name]
	if !ok {
		return status.Errorf(codes.Unimplemented, "there is no method %s", name)
	}
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	ctx = metadata.NewIncomingContext(metadata.NewOutgoingContext(ctx, metadata.MD{}), outgoing)
	decode := func(into any) error {
		proto.Merge(into.(proto.Message), request.(proto.Message)) //nolint:forcetypeassert // generated code passes messages
		return nil
	}
	answer, err := m.handler(m.service, ctx, decode, l.interceptor)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), answer.(proto.Message)) //nolint:forcetypeassert // generated code passes messages
	return nil
}

// NewStream implements [grpc.ClientConnInterface]; no method of the REST face streams.
func (*local) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("streams are not offered in process")
}
