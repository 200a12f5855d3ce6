package remote

// GRPCSecurity is grpcSecurity.
var GRPCSecurity = grpcSecurity
