package rest

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
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

// tokenClient is a client of the token service that hands the messages of the most frequent calls over as they are. The
// client that is generated would copy each.
type tokenClient struct {
	grantorv1.TokenServiceClient

	service     grantorv1.TokenServiceServer
	interceptor grpc.UnaryServerInterceptor
}

// newTokenClient returns a client of the token service that is registered with l.
func newTokenClient(l *local) tokenClient {
	service, _ := l.methods[grantorv1.TokenService_IssueToken_FullMethodName].service.(grantorv1.TokenServiceServer)
	return tokenClient{grantorv1.NewTokenServiceClient(l), service, l.interceptor}
}

// IssueToken implements [grantorv1.TokenServiceClient].
func (c tokenClient) IssueToken(ctx context.Context, request *grantorv1.IssueTokenRequest, _ ...grpc.CallOption) (*grantorv1.IssueTokenResponse, error) {
	return handOver(ctx, c, grantorv1.TokenService_IssueToken_FullMethodName, request, c.service.IssueToken)
}

// IntrospectToken implements [grantorv1.TokenServiceClient].
func (c tokenClient) IntrospectToken(ctx context.Context, request *grantorv1.IntrospectTokenRequest, _ ...grpc.CallOption) (*grantorv1.IntrospectTokenResponse, error) {
	return handOver(ctx, c, grantorv1.TokenService_IntrospectToken_FullMethodName, request, c.service.IntrospectToken)
}

// handOver calls a handler through the interceptor.
func handOver[Request, Response any](
	ctx context.Context, c tokenClient, name string, request *Request, handler func(context.Context, *Request) (*Response, error),
) (*Response, error) {
	answer, err := c.interceptor(ctx, request, &grpc.UnaryServerInfo{Server: c.service, FullMethod: name}, func(ctx context.Context, request any) (any, error) {
		return handler(ctx, request.(*Request)) //nolint:forcetypeassert // an interceptor may not change the type
	})
	response, _ := answer.(*Response)
	return response, err
}
