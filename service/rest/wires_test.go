package rest_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/tokentest"
)

// tokenCase is a token request and its result, over REST or gRPC.
type tokenCase struct {
	name   string
	params url.Values
	// authorization is the header or the metadata of that name.
	authorization string
	// want is the OAuth error code; it is empty for a token.
	want string
	// scope and audience are those of the token; they are not compared if they are empty.
	scope    string
	audience []string
}

// onWires maps an OAuth error code to its gRPC code and HTTP status.
var onWires = map[string]struct {
	grpc codes.Code
	http int
}{
	"invalid_request":        {codes.InvalidArgument, http.StatusBadRequest},
	"invalid_scope":          {codes.InvalidArgument, http.StatusBadRequest},
	"invalid_target":         {codes.InvalidArgument, http.StatusBadRequest},
	"unsupported_grant_type": {codes.InvalidArgument, http.StatusBadRequest},
	"invalid_client":         {codes.Unauthenticated, http.StatusUnauthorized},
	"unauthorized_client":    {codes.PermissionDenied, http.StatusBadRequest},
}

// ask returns a form with the client and its secret. It has no scope unless changes contain one.
func ask(id, secret string, changes ...string) url.Values {
	values := good(append([]string{"client_id", id, "client_secret", secret}, changes...)...)
	if !slices.Contains(changes, "scope") {
		values.Del("scope")
	}
	return values
}

// onlyGrant returns a form without client credentials.
func onlyGrant(changes ...string) url.Values {
	return without(good(changes...), "client_id", "client_secret")
}

var identities = []tokenCase{
	{name: "nothing", params: nil, want: "invalid_request"},
	{name: "no grant type", params: without(good(), "grant_type"), want: "invalid_request"},
	{name: "empty grant type", params: good("grant_type", ""), want: "invalid_request"},
	{name: "grant type not offered", params: good("grant_type", "password"), want: "unsupported_grant_type"},
	{name: "grant type in other letter case", params: good("grant_type", "Client_Credentials"), want: "unsupported_grant_type"},
	{name: "no identity", params: onlyGrant(), want: "invalid_client"},
	{name: "id alone", params: without(good(), "client_secret"), want: "invalid_client"},
	{name: "secret alone", params: without(good(), "client_id"), want: "invalid_client"},
	{name: "empty secret", params: good("client_secret", ""), want: "invalid_client"},
	{name: "empty id", params: good("client_id", ""), want: "invalid_client"},
	{name: "Basic with empty secret", params: onlyGrant(), authorization: basic("svc", ""), want: "invalid_client"},
	{name: "Basic with empty id", params: onlyGrant(), authorization: basic("", secret), want: "invalid_client"},

	{name: "secret in the body", params: good(), scope: "api1", audience: []string{res1}},
	{name: "Basic", params: onlyGrant(), authorization: basic("svc", secret), scope: "api1"},
	{name: "scheme in other letter case", params: onlyGrant(), authorization: "bAsIc" + basic("svc", secret)[5:]},
	{name: "Basic and the same id in the body", params: without(good(), "client_secret"), authorization: basic("svc", secret)},
	{name: "Basic with escapes", params: onlyGrant(), authorization: basic(oddID, oddSecret)},
	{name: "body with odd characters", params: ask(oddID, oddSecret)},
	{name: "Basic with everything escaped", params: onlyGrant(), authorization: rawBasic("%6fdd%2bid%25%3a:%61-secret%2bwith%25odd%3amarks")},
	{name: "Basic with a colon in the secret", params: onlyGrant(), authorization: rawBasic("odd%2Bid%25%3A:a-secret%2Bwith%25odd:marks")},
	{name: "Basic without its escapes", params: onlyGrant(), authorization: rawBasic(oddID + ":" + oddSecret), want: "invalid_client"},
	{name: "Basic with + for +", params: onlyGrant(), authorization: rawBasic("odd%2Bid%25%3A:a-secret+with%25odd%3Amarks"), want: "invalid_client"},

	{name: "wrong secret", params: good("client_secret", wrong), want: "invalid_client"},
	{name: "unknown client", params: good("client_id", "nobody"), want: "invalid_client"},
	{name: "id that no client can have", params: good("client_id", "no body"), want: "invalid_client"},
	{name: "disabled client", params: ask("disabled", secret), want: "invalid_client"},
	{name: "expired secret", params: ask("expired", secret), want: "invalid_client"},
	{name: "id in other letter case", params: good("client_id", "SVC"), want: "invalid_client"},
	{name: "one byte more", params: good("client_secret", secret+"x"), want: "invalid_client"},
	{name: "one byte fewer", params: good("client_secret", secret[1:]), want: "invalid_client"},
	{name: "blank after the secret", params: good("client_secret", secret+" "), want: "invalid_client"},
	{name: "method that the client does not have: post", params: ask("basiconly", secret), want: "invalid_client"},
	{name: "method that the client has: Basic", params: onlyGrant(), authorization: basic("basiconly", secret)},
	{name: "method that the client does not have: Basic", params: onlyGrant(), authorization: basic("postonly", secret), want: "invalid_client"},
	{name: "method that the client has: post", params: ask("postonly", secret)},
	{name: "Basic that is not base64", params: onlyGrant(), authorization: "Basic ~~~~", want: "invalid_client"},
	{name: "Basic without a colon", params: onlyGrant(), authorization: rawBasic("svc"), want: "invalid_client"},
	{name: "Basic with half an escape", params: onlyGrant(), authorization: rawBasic("svc:%2"), want: "invalid_client"},
	{name: "Basic without credentials", params: onlyGrant(), authorization: "Basic", want: "invalid_client"},
	{name: "Basic and a body secret", params: good(), authorization: basic("svc", secret), want: "invalid_request"},
	{name: "malformed Basic and a body secret", params: good(), authorization: "Basic ~~~~", want: "invalid_request"},
	{name: "Basic and another id in the body", params: without(good("client_id", "other"), "client_secret"), authorization: basic("svc", secret), want: "invalid_request"},
	{name: "Bearer with a body secret", params: good(), authorization: "Bearer abc", scope: "api1"},
	{name: "Bearer alone", params: onlyGrant(), authorization: "Bearer abc", want: "invalid_client"},

	{name: "no grant", params: ask("nogrant", secret), want: "unauthorized_client"},
	{name: "no grant and a wrong secret", params: ask("nogrant", wrong), want: "invalid_client"},
}

var rights = []tokenCase{
	{name: "scope that is not registered", params: good("scope", "nothing"), want: "invalid_scope"},
	{name: "scope that is not granted", params: good("scope", "api2"), want: "invalid_scope"},
	{name: "one granted, one not", params: good("scope", "api1 api2"), want: "invalid_scope"},
	{name: "one granted, one not registered", params: good("scope", "api1 nothing"), want: "invalid_scope"},
	{name: "scope in other letter case", params: good("scope", "API1"), want: "invalid_scope"},
	{name: "unregistered scope and a wrong secret", params: good("scope", "nothing", "client_secret", wrong), want: "invalid_client"},
	{name: "malformed scope and a wrong secret", params: good("scope", `"`, "client_secret", wrong), want: "invalid_client"},
	{name: "repeats and blanks", params: good("scope", strings.Repeat(" api1 ", 2)), scope: "api1"},
	{name: "tab", params: ask("multi", secret, "scope", "api1\tapi2"), want: "invalid_scope"},
	{name: "line feed", params: ask("multi", secret, "scope", "api1\napi2"), want: "invalid_scope"},
	{name: "comma", params: ask("multi", secret, "scope", "api1,api2"), want: "invalid_scope"},
	{name: "double quote", params: good("scope", `api1"`), want: "invalid_scope"},
	{name: "backslash", params: good("scope", `api1\`), want: "invalid_scope"},
	{name: "not ASCII", params: good("scope", "äpi1"), want: "invalid_scope"},
	{name: "openid", params: good("scope", "openid"), want: "invalid_scope"},
	{name: "offline_access", params: good("scope", "api1 offline_access"), want: "invalid_scope"},
	{name: "no scope: all", params: ask("multi", secret), scope: "api1 api2 other.read", audience: []string{res1, res2}},
	{name: "empty scope: all", params: ask("multi", secret, "scope", ""), scope: "api1 api2 other.read"},
	{name: "no scope: the default ones", params: ask("default", secret), scope: "api2", audience: []string{res1}},
	{name: "more than the default ones", params: ask("default", secret, "scope", "api1 api2"), scope: "api1 api2"},

	{name: "resource", params: ask("multi", secret, "resource", res1), scope: "api1 api2", audience: []string{res1}},
	{name: "audience", params: ask("multi", secret, "audience", res2), scope: "other.read", audience: []string{res2}},
	{name: "resource and audience", params: ask("multi", secret, "resource", res1, "audience", res2), audience: []string{res1, res2}},
	{name: "the same as both", params: ask("multi", secret, "resource", res1, "audience", res1), audience: []string{res1}},
	{name: "scopes of two, resource one", params: ask("multi", secret, "scope", "api1 other.read", "resource", res2), scope: "other.read", audience: []string{res2}},
	{name: "empty resource", params: ask("multi", secret, "resource", ""), audience: []string{res1, res2}},
	{name: "empty audience", params: ask("multi", secret, "audience", ""), audience: []string{res1, res2}},
	{name: "resource without a scope asked for", params: ask("multi", secret, "scope", "api1", "resource", res2), want: "invalid_target"},
	{name: "unknown resource", params: good("resource", "https://nothing.internal"), want: "invalid_target"},
	{name: "unknown audience", params: good("audience", "https://nothing.internal"), want: "invalid_target"},
	{name: "resource that is not allowed", params: good("resource", res2), want: "invalid_target"},
	{name: "one allowed, one not", params: good("resource", res1, "audience", res2), want: "invalid_target"},
	{name: "resource in other letter case", params: good("resource", strings.ToUpper(res1)), want: "invalid_target"},
	{name: "resource with a slash more", params: good("resource", res1+"/"), want: "invalid_target"},
	{name: "resource with a fragment", params: good("resource", res1+"#"), want: "invalid_target"},
	{name: "resource that is no URI", params: good("resource", "res1"), want: "invalid_target"},
	{name: "no audience", params: ask("noscope", secret), want: "invalid_target"},
}

// manyResources returns a form with the same resource n times.
func manyResources(n int) url.Values {
	values := good()
	values["resource"] = slices.Repeat([]string{res1}, n)
	return values
}

var bounds = []tokenCase{
	{name: "client_id of 255", params: ask(longID, secret)},
	{name: "client_id of 256", params: ask(longID+"i", secret), want: "invalid_request"},
	{name: "Basic id of 255", params: onlyGrant(), authorization: basic(longID, secret)},
	{name: "Basic id of 256", params: onlyGrant(), authorization: basic(longID+"i", secret), want: "invalid_request"},
	{name: "client_secret of 512", params: ask("longsecret", longSecret)},
	{name: "client_secret of 513", params: ask("longsecret", longSecret+"p"), want: "invalid_request"},
	{name: "Basic secret of 512", params: onlyGrant(), authorization: basic("longsecret", longSecret)},
	{name: "Basic secret of 513", params: onlyGrant(), authorization: basic("longsecret", longSecret+"p"), want: "invalid_request"},
	{name: "scope of 128", params: ask("long", secret, "scope", strings.Repeat("s", 128)), scope: strings.Repeat("s", 128)},
	{name: "scope of 129", params: ask("long", secret, "scope", strings.Repeat("s", 129)), want: "invalid_request"},
	{name: "64 scopes", params: ask("many", secret, "scope", numbered(64)), scope: numbered(64)},
	{name: "65 scopes", params: ask("many", secret, "scope", numbered(65)), want: "invalid_request"},
	{name: "resource of 512", params: ask("long", secret, "resource", longResource), scope: "long", audience: []string{longResource}},
	{name: "resource of 513", params: ask("long", secret, "resource", longResource+"r"), want: "invalid_request"},
	{name: "audience of 512", params: ask("long", secret, "audience", longResource), scope: "long"},
	{name: "audience of 513", params: ask("long", secret, "audience", longResource+"r"), want: "invalid_request"},
	{name: "16 resources", params: manyResources(16), audience: []string{res1}},
	{name: "17 resources", params: manyResources(17), want: "invalid_request"},
	{name: "NUL in a secret", params: good("client_secret", secret+"\x00"), want: "invalid_request"},
	{name: "NUL in a scope", params: good("scope", "api1\x00"), want: "invalid_request"},
}

// TestTokenDecisions requests each token over REST and over gRPC. The result is the same.
func TestTokenDecisions(t *testing.T) {
	issuer := newIssuer(t)
	conn := issuer.Conn(t)
	for _, c := range slices.Concat(identities, rights, bounds) {
		t.Run(c.name, func(t *testing.T) {
			overREST(t, issuer, c)
			overGRPC(t, conn, c)
		})
	}
}

func overREST(t *testing.T, issuer *tokentest.Issuer, c tokenCase) {
	t.Helper()
	var headers []string
	if c.authorization != "" {
		headers = append(headers, "Authorization: "+c.authorization)
	}
	a := post(t, issuer, c.params, headers...)
	if c.want == "" {
		body := wantToken(t, a)
		wantClaims(t, body.AccessToken, body.Scope, c)
		return
	}
	sent := []string{c.authorization}
	for name, values := range c.params {
		if c.want != "invalid_scope" || name != "scope" {
			sent = append(sent, values...)
		}
	}
	wantRefusal(t, a, onWires[c.want].http, c.want, sent...)
	if c.want == "invalid_scope" && !strings.Contains(a.body, `"The scope `) {
		t.Errorf("got %s, want the scope named", a.body)
	}
	if got, want := a.header.Get("WWW-Authenticate"), `Basic realm="`+issuer.URL+`"`; c.want == "invalid_client" && got != want {
		t.Errorf("WWW-Authenticate: got %s, want %s", got, want)
	}
}

func overGRPC(t *testing.T, conn *grpc.ClientConn, c tokenCase) {
	t.Helper()
	ctx := t.Context()
	if c.authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", c.authorization)
	}
	answer, err := grantorv1.NewTokenServiceClient(conn).IssueToken(ctx, &grantorv1.IssueTokenRequest{
		GrantType: c.params.Get("grant_type"), ClientId: c.params.Get("client_id"), ClientSecret: c.params.Get("client_secret"),
		Scope: c.params.Get("scope"), Resource: c.params["resource"], Audience: c.params.Get("audience"),
		ClientAssertion: c.params.Get("client_assertion"), ClientAssertionType: c.params.Get("client_assertion_type"),
	})
	if c.want != "" {
		wantStatus(t, err, onWires[c.want].grpc, c.want)
		if c.want == "invalid_scope" && !strings.HasPrefix(status.Convert(err).Message(), "The scope ") {
			t.Errorf("got %v, want the scope named", err)
		}
		return
	}
	must.Succeed(t, err)
	if answer.GetTokenType() != "Bearer" || answer.GetExpiresIn() <= 0 {
		t.Errorf("got %v, want a Bearer token with a lifetime", answer)
	}
	wantClaims(t, answer.GetAccessToken(), answer.GetScope(), c)
}

// wantStatus checks the code of a gRPC error and the reason in its ErrorInfo.
func wantStatus(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	if !described.MatchString(s.Message()) {
		t.Errorf("got the message %q, want only characters of RFC 6749 section 5.2", s.Message())
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.GetReason() != reason || info.GetDomain() != oauth.ErrorDomain {
				t.Errorf("got reason %q of %q, want %q of %q", info.GetReason(), info.GetDomain(), reason, oauth.ErrorDomain)
			}
			return
		}
	}
	t.Error("got no ErrorInfo")
}

// wantClaims compares the claims of the token with scope, which is the answer's, and with the case.
func wantClaims(t *testing.T, token, scope string, c tokenCase) {
	t.Helper()
	claims := decode(t, token)
	if claims.Scope != scope {
		t.Errorf("got the scope %q in the token and %q in the answer, want them equal", claims.Scope, scope)
	}
	if c.scope != "" && scope != c.scope {
		t.Errorf("got scope %q, want %q", scope, c.scope)
	}
	if c.audience != nil && !slices.Equal(claims.Audience, c.audience) {
		t.Errorf("got aud %q, want %q", claims.Audience, c.audience)
	}
}
