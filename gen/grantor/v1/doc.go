// Package grantorv1 is the API of Grantor: the messages and gRPC stubs that are generated from proto/grantor/v1.
//
// A service that sends tokens uses interceptors/attach, and one that verifies them interceptors/verify. This package is
// for programs that call the issuer's services themselves:
//
//	conn, err := grpc.NewClient("grantor.internal:8081", attach.IssuerDialOptions()...)
//	answer, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
//		GrantType: "client_credentials", ClientId: id, ClientSecret: secret, Scope: "orders.read",
//	})
//
// The services and the option of their methods:
//
//   - [TokenServiceClient] issues, introspects and revokes tokens as a client.
//   - [ClientServiceClient], [ResourceServiceClient], [TrustServiceClient] and [KeyServiceClient] administer the issuer, with
//     a token for the resource "urn:grantor:admin".
//   - [RevocationServiceClient] follows the revocations. Package verify does so by itself.
//   - [StreamServiceClient] renews the token of a stream. Packages attach and verify implement both sides.
//   - [Rule] is the value of the option grantor.v1.rule, by which a proto states which callers may call a method.
//
// Errors carry google.rpc.ErrorInfo with the domain "grantor"; the comments of the services list the reasons.
package grantorv1
