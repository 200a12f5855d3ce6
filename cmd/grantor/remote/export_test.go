package remote

// GrpcSecurity is grpcSecurity.
var GrpcSecurity = grpcSecurity
