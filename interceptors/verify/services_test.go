package verify_test

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/verify"
	"github.com/grantorhq/grantor/service/must"
)

// The methods of the test services return the client id of the caller, or "nobody".
var (
	goService    = echoService("test.v1.Go", "Open", "Any", "Read", "Transfer")
	protoService = echoService("test.v1.Proto", "Open", "Any", "Read", "Transfer")
	malformed    = echoService("test.v1.Malformed", "Empty", "Two", "Scope")

	goPolicy = verify.Policy{
		"/test.v1.Go/Open":     verify.Public(),
		"/test.v1.Go/Any":      verify.Authenticated(),
		"/test.v1.Go/Read":     verify.Scopes("orders.read"),
		"/test.v1.Go/Transfer": verify.Scopes("orders.read", "orders.write"),
		"/test.v1.Go/Chat":     verify.Scopes("orders.read"),
	}
)

func init() {
	register("test/v1/test.proto",
		describe("test.v1.Proto", map[string]*grantorv1.Rule{
			"Open":     {Public: true},
			"Any":      {Authenticated: true},
			"Read":     {Scopes: []string{"orders.read"}},
			"Transfer": {Scopes: []string{"orders.read", "orders.write"}},
			"Chat":     {Scopes: []string{"orders.read"}},
		}),
		describe("test.v1.Malformed", map[string]*grantorv1.Rule{
			"Empty": {},
			"Two":   {Public: true, Authenticated: true},
			"Scope": {Scopes: []string{`orders"read`}},
			"Chat":  {Scopes: []string{"orders.read"}, Public: true},
		}))
}

func describe(service string, rules map[string]*grantorv1.Rule) *descriptorpb.ServiceDescriptorProto {
	d := &descriptorpb.ServiceDescriptorProto{Name: new(string(protoreflect.FullName(service).Name()))}
	for name, rule := range rules {
		options := &descriptorpb.MethodOptions{}
		proto.SetExtension(options, grantorv1.E_Rule, rule)
		d.Method = append(d.Method, &descriptorpb.MethodDescriptorProto{
			Name: new(name), Options: options,
			InputType: new(".google.protobuf.Empty"), OutputType: new(".google.protobuf.StringValue"),
			ClientStreaming: new(name == "Chat"), ServerStreaming: new(name == "Chat"),
		})
	}
	return d
}

func register(path string, services ...*descriptorpb.ServiceDescriptorProto) {
	file := must.Get(protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String(path), Package: proto.String("test.v1"), Syntax: proto.String("proto3"), Service: services,
		Dependency: []string{"grantor/v1/rule.proto", "google/protobuf/empty.proto", "google/protobuf/wrappers.proto"},
	}, protoregistry.GlobalFiles))
	if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
		panic(err)
	}
}

// echoService returns a service with the unary methods and the bidirectional stream Chat.
func echoService(name string, methods ...string) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{
		StreamName: "Chat", ClientStreams: true, ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			for {
				if err := stream.RecvMsg(&emptypb.Empty{}); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := stream.SendMsg(callerName(stream.Context())); err != nil {
					return err
				}
			}
		},
	}}}
	for _, method := range methods {
		info := &grpc.UnaryServerInfo{FullMethod: "/" + name + "/" + method}
		desc.Methods = append(desc.Methods, grpc.MethodDesc{MethodName: method, Handler: func(
			_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor,
		) (any, error) {
			request := &emptypb.Empty{}
			if err := decode(request); err != nil {
				return nil, err
			}
			handler := func(ctx context.Context, _ any) (any, error) { return callerName(ctx), nil }
			if interceptor == nil {
				return handler(ctx, request)
			}
			return interceptor(ctx, request, info, handler)
		}})
	}
	return desc
}

// callerName returns the client id of the caller, or "nobody".
func callerName(ctx context.Context) *wrapperspb.StringValue {
	if caller, ok := verify.CallerFrom(ctx); ok {
		return wrapperspb.String(caller.ClientID)
	}
	return wrapperspb.String("nobody")
}
