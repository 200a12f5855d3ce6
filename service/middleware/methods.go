package middleware

import "google.golang.org/grpc"

// Methods are the methods of an issuer, by full name: "/package.Service/Method". Registering a service with it adds the
// service's methods.
type Methods map[string]shape

// shape says how many messages the calls of a method have.
type shape uint8

const (
	// unary is one request and one response.
	unary shape = iota
	// serverStream is one request and any number of responses.
	serverStream
	// clientStream is any number of requests.
	clientStream
)

// RegisterService implements [grpc.ServiceRegistrar].
func (m Methods) RegisterService(desc *grpc.ServiceDesc, _ any) {
	for i := range desc.Methods {
		m["/"+desc.ServiceName+"/"+desc.Methods[i].MethodName] = unary
	}
	for i := range desc.Streams {
		shape := serverStream
		if desc.Streams[i].ClientStreams {
			shape = clientStream
		}
		m["/"+desc.ServiceName+"/"+desc.Streams[i].StreamName] = shape
	}
}

// has reports whether the method exists.
func (m Methods) has(method string) bool {
	_, ok := m[method]
	return ok
}
