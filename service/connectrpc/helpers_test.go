package connectrpc_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

const res1 = "https://res1.internal"

// secret is the secret of the clients that have one: a generated one, which costs no slow hash.
var secret = clientsecret.New()

// signer has the key of the client keyed.
var signer = jwstest.NewSigner(jwks.ES256)

// newIssuer starts an issuer with the client svc, which has a secret, with the client keyed, which has a key, and with the
// client res1, which introspects.
func newIssuer(t testing.TB, options ...tokentest.Option) *tokentest.Issuer {
	t.Helper()
	issuer := tokentest.New(t, options...)
	resource, scopes := must.Get(oauth.ParseResource(res1)), must.Get(oauth.ParseScopes("api1"))
	spec := func(id, secret string, c registry.Client) registry.ClientSpec {
		c.ID, c.GrantTypes = must.Get(oauth.ParseClientID(id)), []string{oauth.GrantClientCredentials}
		return registry.ClientSpec{Secret: secret, Client: c}
	}
	disabled := spec("disabled", secret, registry.Client{Scopes: scopes, Disabled: true})
	nogrant := spec("nogrant", secret, registry.Client{Scopes: scopes})
	nogrant.GrantTypes = nil
	issuer.Apply(t, registry.Manifest{
		Resources: []registry.Resource{{ID: resource, Scopes: scopes}},
		Clients: []registry.ClientSpec{
			spec("svc", secret, registry.Client{Scopes: scopes}), disabled, nogrant,
			spec("keyed", "", registry.Client{Scopes: scopes, Keys: must.Get(jwks.NewDocument(signer.Key()))}),
			spec("res1", secret, registry.Client{Resources: []oauth.Resource{resource}}),
			spec("bound", secret, registry.Client{Scopes: scopes, DPoPBoundTokens: true}),
		},
	})
	return issuer
}

// wire is a way in which connect-go calls the service.
type wire struct {
	name    string
	options []connect.ClientOption
	client  *http.Client
}

// wires returns every combination of protocol, codec and compression. config is that of TLS.
func wires(config *tls.Config) (all []wire) {
	transport := func(http2 bool) *http.Client {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetHTTP2(http2)
		protocols.SetUnencryptedHTTP2(http2)
		return &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone(), Protocols: protocols}}
	}
	type named struct {
		name   string
		option connect.ClientOption
	}
	none := connect.WithClientOptions()
	http1, http2 := transport(false), transport(true)
	for _, protocol := range []struct {
		named
		client *http.Client
	}{
		{named{"Connect", none}, http1}, {named{"Connect over HTTP/2", none}, http2},
		{named{"gRPC-Web", connect.WithGRPCWeb()}, http1}, {named{"gRPC", connect.WithGRPC()}, http2},
	} {
		for _, codec := range []named{{"binary", none}, {"JSON", connect.WithProtoJSON()}} {
			for _, compression := range []named{{"identity", none}, {"gzip", connect.WithSendGzip()}} {
				all = append(all, wire{
					name:    protocol.name + " " + codec.name + " " + compression.name,
					options: []connect.ClientOption{protocol.option, codec.option, compression.option}, client: protocol.client,
				})
			}
		}
	}
	return all
}

// answer is what a call returns.
type answer[T any] struct {
	message *T
	err     error
	// meta are the headers and the trailers of the answer.
	meta http.Header
}

// call calls the method at the URL, with headers as pairs of names and values.
func call[Res, Req any](t testing.TB, w wire, url string, request *Req, headers ...string) answer[Res] {
	t.Helper()
	client := connect.NewClient[Req, Res](w.client, url, w.options...)
	sent := connect.NewRequest(request)
	for i := 0; i < len(headers); i += 2 {
		sent.Header().Add(headers[i], headers[i+1])
	}
	got, err := client.CallUnary(t.Context(), sent)
	if err != nil {
		refused, ok := errors.AsType[*connect.Error](err)
		if !ok {
			t.Fatalf("got %v, want an error of connect-go", err)
		}
		return answer[Res]{err: err, meta: refused.Meta()}
	}
	return answer[Res]{message: got.Msg, meta: got.Header()}
}

// issue requests a token.
func issue(t testing.TB, w wire, issuer string, request *grantorv1.IssueTokenRequest, headers ...string) answer[grantorv1.IssueTokenResponse] {
	t.Helper()
	return call[grantorv1.IssueTokenResponse](t, w, issuer+grantorv1.TokenService_IssueToken_FullMethodName, request, headers...)
}

// withSecret returns a request that authenticates the client svc by its secret.
func withSecret() *grantorv1.IssueTokenRequest {
	return &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: "svc", ClientSecret: secret, Scope: "api1"}
}

// basic returns the Authorization header of RFC 6749 §2.3.1.
func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// described is the character set of error_description (RFC 6749 §5.2).
var described = regexp.MustCompile(`^[\x20\x21\x23-\x5b\x5d-\x7e]+$`)

// wantRefusal checks the code of an error, its text, and the reason in its ErrorInfo. It returns the metadata of ErrorInfo.
func wantRefusal(t testing.TB, err error, code connect.Code, reason string) map[string]string {
	t.Helper()
	refused, ok := errors.AsType[*connect.Error](err)
	if !ok {
		t.Fatalf("got %v, want %s", err, reason)
	}
	if refused.Code() != code || !described.MatchString(refused.Message()) {
		t.Errorf("got %v, want %s with a text of the characters of RFC 6749 section 5.2", err, code)
	}
	for _, detail := range refused.Details() {
		if info, ok := must.Get(detail.Value()).(*errdetails.ErrorInfo); ok {
			if info.GetReason() != reason || info.GetDomain() != oauth.ErrorDomain {
				t.Errorf("got reason %q of %q, want %q of %q", info.GetReason(), info.GetDomain(), reason, oauth.ErrorDomain)
			}
			return info.GetMetadata()
		}
	}
	t.Errorf("got %v without ErrorInfo", err)
	return nil
}
