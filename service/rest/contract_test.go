package rest_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

const formType = "application/x-www-form-urlencoded"

// TestMethods sends each method to each endpoint.
func TestMethods(t *testing.T) {
	issuer := newIssuer(t)
	for target, allowed := range map[string]string{
		"/connect/token": "POST", "/connect/introspect": "POST", "/connect/revoke": "POST",
		"/.well-known/oauth-authorization-server": "GET, HEAD",
		"/.well-known/openid-configuration":       "GET, HEAD",
		"/.well-known/jwks.json":                  "GET, HEAD",
		"/":                                       "GET, HEAD",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "post", "BREW"} {
			t.Run(method+" "+target, func(t *testing.T) {
				a := send(t, issuer, request{method: method, target: target, body: good("token", "x").Encode()})
				if strings.HasPrefix(target, "/.well-known/") {
					wantOpen(t, a)
				}
				for want := range strings.SplitSeq(allowed, ", ") {
					if method == want {
						if a.status != http.StatusOK {
							t.Errorf("got %d %s, want 200", a.status, a.body)
						}
						return
					}
				}
				if got := a.header.Get("Allow"); a.status != http.StatusMethodNotAllowed || got != allowed {
					t.Errorf("got %d, Allow: %s; want 405, Allow: %s", a.status, got, allowed)
				}
				if method != http.MethodHead { // which has no body
					wantRefusal(t, a, http.StatusMethodNotAllowed, "invalid_request", method)
				}
			})
		}
	}
}

// TestPaths requests paths that resemble those of the endpoints.
func TestPaths(t *testing.T) {
	issuer := newIssuer(t)
	for _, target := range []string{
		"/connect", "/connect/", "/connect/token/", "/connect/token//", "//connect/token", "/connect//token", "/./connect/token",
		"/connect/./token", "/connect/../connect/token", "/connect/token/.", "/connect/token/..", "/Connect/token", "/connect/Token",
		"/CONNECT/TOKEN", "/connect%2Ftoken", "/connect%2ftoken", "/connect/%74oken", "/connect/token%00", "/connect/token%20",
		"/connect/token%3F", "/connect/token;a=b", "/connect/token#part", "/connect\\token", "/connect/token.", "/connect/token.json",
		"/connect/introspect/", "/connect/Introspect", "/connect/introspect%20", "/connect/introspect/batch", "/connect//introspect",
		"/connect/revoke/", "/connect/Revoke", "/connect/revoke;a=b", "/connect/%72evoke", "/connect/revocation",
		"/grantor.v1.TokenService", "/grantor.v1.TokenService/", "/grantor.v1.TokenService/Issue", "/grantor.v1.TokenService/issueToken",
		"/grantor.v1.TokenService/IssueToken/", "/grantor.v1.TokenService//IssueToken", "//grantor.v1.TokenService/IssueToken",
		"/grantor.v1.TokenService%2FIssueToken", "/grantor.v1.TokenService/%49ssueToken", "/x/grantor.v1.TokenService/IssueToken",
		"/grantor.v1.tokenservice/IssueToken", "/TokenService/IssueToken", "/grantor.v1.TokenService/./IssueToken",
		"/grantor.v1.RevocationService/WatchRevocations", "/grantor.v1.ClientService/ListClients", "/grantor.v1.KeyService/RotateKeys",
		"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/connect/token:IssueToken", "/.well-known", "/.well-known/",
		"/.well-known/oauth-authorization-server/", "/.well-known/OAuth-Authorization-Server", "/.well-known/jwks.json/",
		"/.well-known/jwks%2Ejson", "/.well-known/openid-configuration/tenant", "/tenant/.well-known/openid-configuration",
	} {
		t.Run(target, func(t *testing.T) {
			for _, method := range []string{"POST", "GET"} {
				a := send(t, issuer, request{method: method, target: target, body: good().Encode()})
				wantRefusal(t, a, http.StatusNotFound, "invalid_request", target)
			}
		})
	}
	t.Run("absolute form", func(t *testing.T) {
		wantToken(t, send(t, issuer, request{target: "http://elsewhere.test/connect/token", body: good().Encode()}))
	})
}

// TestContentTypes sends forms with each kind of Content-Type.
func TestContentTypes(t *testing.T) {
	issuer := newIssuer(t)
	for _, c := range []struct {
		name, contentType string
		headers           []string
		ok                bool
	}{
		{name: "form", contentType: formType, ok: true},
		{name: "charset", contentType: formType + "; charset=utf-8", ok: true},
		{name: "charset without a blank", contentType: formType + ";charset=UTF-8", ok: true},
		{name: "other letter case", contentType: "Application/X-WWW-Form-URLEncoded; Charset=UTF-8", ok: true},
		{name: "none", contentType: "-"},
		{name: "empty", contentType: " "},
		{name: "JSON", contentType: "application/json"},
		{name: "multipart", contentType: "multipart/form-data; boundary=x"},
		{name: "text", contentType: "text/plain"},
		{name: "any", contentType: "*/*"},
		{name: "letters glued on", contentType: formType + "x"},
		{name: "a word glued on", contentType: formType + " x"},
		{name: "a type glued on", contentType: formType + ", application/json"},
		{name: "a malformed parameter", contentType: formType + "; charset"},
		{name: "a parameter twice", contentType: formType + "; charset=utf-8; charset=utf-16"},
		{name: "tabs", contentType: formType + "\t;\tcharset=utf-8\t", ok: true},
		{name: "a dotted I", contentType: "appl\u0130cation/x-www-form-urlencoded"},
		{name: "a long s", contentType: "application/x-www-form-urlencoded; char\u017fet=utf-8"},
		{name: "a no-break space behind", contentType: formType + "\u00a0"},
		{name: "a no-break space before", contentType: "\u00a0" + formType},
		{name: "a next line behind", contentType: formType + "\u0085"},
		{name: "an em space behind", contentType: formType + "\u2003"},
		{name: "a no-break space before a parameter", contentType: formType + ";\u00a0charset=utf-8"},
		{name: "an em space before a semicolon", contentType: formType + "\u2003; charset=utf-8"},
		{name: "two headers", contentType: formType, headers: []string{"Content-Type: " + formType}},
		{name: "two headers, two types", contentType: formType, headers: []string{"Content-Type: application/json"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := send(t, issuer, request{contentType: c.contentType, headers: c.headers, body: good().Encode()})
			if c.ok {
				wantToken(t, a)
			} else {
				wantRefusal(t, a, http.StatusBadRequest, "invalid_request", "multipart", "text/plain", "gzip")
			}
			for target, done := range done {
				a := send(t, issuer, request{target: target, contentType: c.contentType, headers: c.headers, body: good("token", "x").Encode()})
				if c.ok {
					wantBody(t, a, done)
				} else {
					wantRefusal(t, a, http.StatusBadRequest, "invalid_request", "multipart", "text/plain", "gzip")
				}
			}
		})
	}
}

// TestContentEncodings sends bodies with each kind of Content-Encoding (RFC 9110 §8.4). The coding identity is none.
func TestContentEncodings(t *testing.T) {
	issuer := newIssuer(t)
	for _, c := range []struct {
		name  string
		lines []string
		ok    bool
	}{
		{"identity", []string{"identity"}, true},
		{"other letter case", []string{"IdEnTiTy"}, true},
		{"identity twice", []string{"identity, identity"}, true},
		{"identity without a blank", []string{"identity,identity"}, true},
		{"identity on two lines", []string{"identity", "Identity"}, true},
		{"nothing", []string{""}, true},
		{"empty elements", []string{" , identity,\t,"}, true},
		{"gzip", []string{"gzip"}, false},
		{"gzip in other letter case", []string{"GZIP"}, false},
		{"brotli", []string{"br"}, false},
		{"a coding that there is not", []string{"identityx"}, false},
		{"a parameter", []string{"identity;q=1"}, false},
		{"identity in quotes", []string{`"identity"`}, false},
		{"two words", []string{"identity identity"}, false},
		{"dotless i", []string{"\u0131dentity"}, false},
		{"gzip after identity", []string{"identity, gzip"}, false},
		{"gzip before identity", []string{"gzip, identity"}, false},
		{"gzip on a second line", []string{"identity", "gzip"}, false},
		{"gzip after nothing", []string{"", "gzip"}, false},
		{"gzip twice", []string{"gzip, gzip"}, false},
		{"any", []string{"*"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			for _, line := range c.lines {
				headers = append(headers, "Content-Encoding: "+line)
			}
			answers := map[string]*answer{"/connect/token": post(t, issuer, good(), headers...)}
			for target := range done {
				answers[target] = send(t, issuer, request{target: target, headers: headers, body: good("token", "x").Encode()})
			}
			answers["/v1/clients"] = send(t, issuer, request{target: "/v1/clients", contentType: "application/json", headers: headers, body: "{}"})
			for target, a := range answers {
				switch {
				case !c.ok:
					wantRefusal(t, a, http.StatusUnsupportedMediaType, "invalid_request", "gzip")
					if got := a.header.Get("Accept-Encoding"); got != "identity" {
						t.Errorf("%s: got Accept-Encoding %q, want identity", target, got)
					}
				case target == "/connect/token":
					wantToken(t, a)
				case target == "/v1/clients":
					wantRefusal(t, a, http.StatusUnauthorized, "invalid_token")
				default:
					wantBody(t, a, done[target])
				}
			}
		})
	}
}

// fill returns a body of n bytes that gets a token.
func fill(n int) string {
	body := good().Encode() + "&padding="
	return body + strings.Repeat("p", n-len(body))
}

// count returns a body of n parameters that gets a token.
func count(n int) string {
	body := good().Encode()
	for i := strings.Count(body, "&") + 1; i < n; i++ {
		body += "&p" + strconv.Itoa(i) + "=v"
	}
	return body
}

// TestForms sends well-formed and malformed bodies.
func TestForms(t *testing.T) {
	issuer := newIssuer(t)
	form := good().Encode()
	for _, c := range []struct {
		name, body string
		chunked    bool
		want       int
		// text is part of the refusal.
		text string
	}{
		{name: "empty", body: "", want: 400, text: "grant_type is missing."},
		{name: "only separators", body: "&&&", want: 400},
		{name: "unknown parameters", body: form + "&grantType=x&Scope=other&client%5Fassertion2=y&=z&scope[]=w", want: 200},
		{name: "empty values", body: form + "&resource=&audience=&unknown=", want: 200},
		{name: "name without a value", body: form + "&resource&audience", want: 200},
		{name: "JSON names", body: "grantType=client_credentials&clientId=svc&clientSecret=" + secret, want: 400, text: "grant_type is missing."},
		{name: "grant_type twice", body: form + "&grant_type=client_credentials", want: 400, text: "grant_type"},
		{name: "client_id twice", body: form + "&client_id=svc", want: 400, text: "client_id"},
		{name: "client_secret twice", body: form + "&client_secret=", want: 400, text: "client_secret"},
		{name: "scope twice", body: form + "&scope=api1", want: 400, text: "scope"},
		{name: "audience twice", body: form + "&audience=" + res1 + "&audience=" + res1, want: 400, text: "audience"},
		{name: "unknown twice", body: form + "&unknownname=1&unknownname=2", want: 400, text: "A parameter is sent more than once."},
		{name: "twice by an escape", body: form + "&client%5fid=svc", want: 400, text: "client_id"},
		{name: "resource twice", body: form + "&resource=" + res1 + "&resource=" + res1, want: 200},
		{name: "invalid escape", body: form + "&unknown=%zz", want: 400},
		{name: "half an escape", body: form + "&unknown=%2", want: 400},
		{name: "invalid escape in a name", body: form + "&un%zzknown=1", want: 400},
		{name: "NUL", body: form + "&unknown=a%00b", want: 400},
		{name: "NUL in a name", body: form + "&un%00known=1", want: 400},
		{name: "raw NUL", body: form + "&unknown=a\x00b", want: 400},
		{name: "not UTF-8", body: form + "&unknown=%ff", want: 400},
		{name: "not UTF-8 in a name", body: form + "&un%c0%80known=1", want: 400},
		{name: "raw bytes that are not UTF-8", body: form + "&unknown=\xff", want: 400},
		{name: "overlong in a secret", body: without(good(), "client_secret").Encode() + "&client_secret=%c0%af", want: 400},
		{name: "65536 bytes", body: fill(65536), want: 200},
		{name: "65536 bytes in chunks", body: fill(65536), chunked: true, want: 200},
		{name: "65537 bytes", body: fill(65537), want: 413},
		{name: "65537 bytes in chunks", body: fill(65537), chunked: true, want: 413},
		{name: "a mebibyte in chunks", body: fill(1 << 20), chunked: true, want: 413},
		{name: "64 parameters", body: count(64), want: 200},
		{name: "65 parameters", body: count(65), want: 400},
		{name: "65 resources", body: form + strings.Repeat("&resource="+res1, 61), want: 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := send(t, issuer, request{body: c.body, chunked: c.chunked})
			if c.want == http.StatusOK {
				wantToken(t, a)
				return
			}
			wantRefusal(t, a, c.want, "invalid_request", "unknown", "clientSecret", "svc", secret)
			if !strings.Contains(a.body, c.text) {
				t.Errorf("got %s, want it to contain %q", a.body, c.text)
			}
		})
	}
}

// TestQuery sends parameters in the query, where they are ignored.
func TestQuery(t *testing.T) {
	issuer := newIssuer(t)
	all := good().Encode()
	for _, c := range []struct {
		name, target, body string
		want               int
	}{
		{"everything", "/connect/token?" + all, "", 400},
		{"the secret", "/connect/token?client_secret=" + secret, without(good(), "client_secret").Encode(), 401},
		{"another scope", "/connect/token?scope=nothing&grant_type=password", all, 200},
		{"malformed", "/connect/token?%zz;&=&&", all, 200},
		{"nothing", "/connect/token?", all, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := send(t, issuer, request{target: c.target, body: c.body})
			if c.want == http.StatusOK {
				wantToken(t, a)
				return
			}
			code := "invalid_request"
			if c.want == http.StatusUnauthorized {
				code = "invalid_client"
			}
			wantRefusal(t, a, c.want, code, secret, all)
		})
	}
}

// TestAuthorizationHeaders sends values of the header that gRPC metadata cannot contain, among others.
func TestAuthorizationHeaders(t *testing.T) {
	issuer := newIssuer(t)
	right := "Authorization: " + basic("svc", secret)
	for _, c := range []struct {
		name    string
		headers []string
		form    string
		want    int
		code    string
	}{
		{"one", []string{right}, onlyGrant().Encode(), 200, ""},
		{"the same twice", []string{right, right}, onlyGrant().Encode(), 400, "invalid_request"},
		{"Basic and Bearer", []string{right, "Authorization: Bearer x"}, onlyGrant().Encode(), 400, "invalid_request"},
		{"two in other letter case", []string{right, "AUTHORIZATION: x"}, onlyGrant().Encode(), 400, "invalid_request"},
		{"an empty one and another", []string{"Authorization:", right}, onlyGrant().Encode(), 400, "invalid_request"},
		{"two in one line", []string{right + ", " + basic("svc", secret)}, onlyGrant().Encode(), 401, "invalid_client"},
		{"empty", []string{"Authorization:"}, good().Encode(), 200, ""},
		{"blanks before the credentials", []string{"Authorization: Basic   " + basic("svc", secret)[6:]}, onlyGrant().Encode(), 200, ""},
		{"long s in Basic", []string{strings.Replace(right, "Basic", "Ba\u017fic", 1)}, onlyGrant().Encode(), 401, "invalid_client"},
		{"not ASCII", []string{"Authorization: Basic \xe9\xe9"}, onlyGrant().Encode(), 401, "invalid_client"},
		{"not ASCII, and a body secret", []string{"Authorization: Basic \xe9\xe9"}, good().Encode(), 400, "invalid_request"},
		{"a tab in it, and a body secret", []string{"Authorization: Basic a\tb"}, good().Encode(), 400, "invalid_request"},
		{"another scheme, not ASCII", []string{"Authorization: Bearer \xe9"}, good().Encode(), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := send(t, issuer, request{headers: c.headers, body: c.form})
			if c.want == http.StatusOK {
				wantToken(t, a)
				return
			}
			wantRefusal(t, a, c.want, c.code, secret, basic("svc", secret)[6:])
		})
	}
}

// TestFailedProofsLookAlike compares whole answers to failed authentications. They do not reveal why one failed, or
// whether the client exists.
func TestFailedProofsLookAlike(t *testing.T) {
	issuer := newIssuer(t)
	tokens := grantorv1.NewTokenServiceClient(issuer.Conn(t))
	refused := post(t, issuer, good("client_secret", wrong))
	wantRefusal(t, refused, http.StatusUnauthorized, "invalid_client")
	_, err := tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "svc", ClientSecret: wrong})
	refusedStatus := status.Convert(err).Proto()
	for _, c := range []struct{ name, id, secret, scope string }{
		{"wrong secret", "svc", wrong, "api1"},
		{"wrong chosen secret", "svc", "wrong", "api1"},
		{"wrong chosen secret of a client with a chosen one", oddID, "wrong", "api1"},
		{"unknown client", "nobody", secret, "api1"},
		{"impossible id", "no\tbody", secret, "api1"},
		{"disabled client", "disabled", secret, "api1"},
		{"disabled client, wrong secret", "disabled", wrong, "api1"},
		{"expired secret", "expired", secret, "api1"},
		{"id in other letter case", "SVC", secret, "api1"},
		{"one byte more", "svc", secret + "s", "api1"},
		{"one byte fewer", "svc", secret[:len(secret)-1], "api1"},
		{"secret in other letter case", "svc", strings.ToUpper(secret), "api1"},
		{"client without the grant", "nogrant", wrong, "api1"},
		{"unregistered scope", "svc", wrong, "nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantSame(t, post(t, issuer, good("client_id", c.id, "client_secret", c.secret, "scope", c.scope)), refused)
			wantSame(t, post(t, issuer, onlyGrant("scope", c.scope), "Authorization: "+basic(c.id, c.secret)), refused)
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", basic(c.id, c.secret))
			_, err := tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: "client_credentials", Scope: c.scope})
			if got := status.Convert(err).Proto(); !proto.Equal(got, refusedStatus) {
				t.Errorf("got %v, want %v", got, refusedStatus)
			}
		})
	}
	for name, form := range map[string]url.Values{
		"no client": onlyGrant(), "a client id alone": without(good(), "client_secret"), "an empty secret": good("client_secret", ""),
		"a secret alone": without(good(), "client_id"),
	} {
		t.Run(name, func(t *testing.T) {
			wantSame(t, post(t, issuer, form), refused)
			wantSame(t, post(t, issuer, form, "Authorization: Bearer x"), refused)
			_, err := tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{
				GrantType: "client_credentials", ClientId: form.Get("client_id"), ClientSecret: form.Get("client_secret"),
			})
			if got := status.Convert(err).Proto(); !proto.Equal(got, refusedStatus) {
				t.Errorf("got %v, want %v", got, refusedStatus)
			}
		})
	}
	for name, authorization := range map[string]string{"not base64": "Basic ~~~~", "no colon": rawBasic("svc"), "nothing": "Basic"} {
		t.Run(name, func(t *testing.T) {
			wantSame(t, post(t, issuer, onlyGrant(), "Authorization: "+authorization), refused)
		})
	}
	t.Run("method that the client does not have", func(t *testing.T) {
		wantSame(t, post(t, issuer, ask("basiconly", secret)), refused)
		wantSame(t, post(t, issuer, onlyGrant(), "Authorization: "+basic("postonly", secret)), refused)
	})
}
