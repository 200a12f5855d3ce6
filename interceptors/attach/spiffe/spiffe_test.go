package spiffe_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/attach/spiffe"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/spiffetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ordersID = "spiffe://prod.example.com/shop/orders"

// issuer is a token endpoint that verifies SVIDs of a domain. Its tokens name the X509-SVID of the connection.
type issuer struct {
	*httptest.Server

	mu     sync.Mutex
	domain *spiffetest.Domain
	forms  []url.Values
}

func newIssuer(t *testing.T, domain *spiffetest.Domain) *issuer {
	t.Helper()
	i := &issuer{domain: domain}
	i.Server = httptest.NewUnstartedServer(http.HandlerFunc(i.answer))
	i.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	i.StartTLS()
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) answer(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	_ = r.ParseForm()
	i.forms = append(i.forms, r.PostForm)
	token := "token"
	if assertion := r.PostForm.Get("client_assertion"); assertion != "" {
		svid, err := jwtsvid.ParseAndValidate(assertion, i.domain.Bundle(), []string{i.URL})
		if err != nil || svid.ID.String() != ordersID {
			w.WriteHeader(http.StatusUnauthorized)
		}
	} else {
		id, _, err := x509svid.Verify(r.TLS.PeerCertificates, i.domain.Bundle())
		if err != nil || id.String() != r.PostForm.Get("client_id") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		token = r.TLS.PeerCertificates[0].SerialNumber.String()
	}
	_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, token)
}

func (i *issuer) source(id string, options ...attach.Option) *attach.Source {
	return attach.ClientCredentials(i.URL, id, "", append(options, attach.TokenURL(i.URL), attach.HTTPClient(i.Client()))...)
}

func serial(svid *x509svid.SVID) string { return svid.Certificates[0].SerialNumber.String() }

// A JWT-SVID for the issuer is fetched for each request, and sent with its own client_assertion_type.
func TestJWT(t *testing.T) {
	domain := spiffetest.NewDomain("prod.example.com")
	api := spiffetest.NewWorkloadAPI(t, domain, ordersID)
	i := newIssuer(t, domain)
	for name, options := range map[string][]spiffe.Option{
		"first": {spiffe.Socket(api.Address)}, "by its ID": {spiffe.Socket(api.Address), spiffe.ID(ordersID), nil},
	} {
		t.Run(name, func(t *testing.T) {
			i.forms = nil
			source := i.source("", spiffe.JWT(t.Context(), options...))
			must.Get(source.Token())
			form := i.forms[0]
			if form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe" || form.Has("client_id") {
				t.Errorf("got the form %v", form)
			}
		})
	}
	domain.RotateJWTKey()
	must.Get(i.source("orders", spiffe.JWT(t.Context(), spiffe.Socket(api.Address))).Token())
	if got := i.forms[len(i.forms)-1].Get("client_id"); got != "orders" {
		t.Errorf("got the client_id %q", got)
	}
}

// An X509-SVID is presented on the connection. When it changes, the source gets a token with the new one.
func TestX509(t *testing.T) {
	domain := spiffetest.NewDomain("prod.example.com")
	api := spiffetest.NewWorkloadAPI(t, domain, ordersID)
	i := newIssuer(t, domain)
	source := i.source("", spiffe.X509(t.Context(), spiffe.Socket(api.Address)))
	must.Get(source.Token())
	if got, want := i.forms[0].Encode(), (url.Values{"grant_type": {"client_credentials"}, "client_id": {ordersID}}).Encode(); got != want {
		t.Errorf("got the form %s, want %s", got, want)
	}
	want := serial(api.Rotate())
	must.Eventually(t, "a token for the new X509-SVID", func() bool { return must.Get(source.Token()).AccessToken == want })
}

func TestFailures(t *testing.T) {
	domain := spiffetest.NewDomain("prod.example.com")
	api := spiffetest.NewWorkloadAPI(t, domain, ordersID)
	i := newIssuer(t, domain)
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
	for name, test := range map[string]struct {
		option func(context.Context, ...spiffe.Option) attach.Option
		with   []spiffe.Option
		want   string
	}{
		"JWT, no address":        {spiffe.JWT, nil, "scheme"},
		"X.509, no address":      {spiffe.X509, nil, "scheme"},
		"JWT, not an address":    {spiffe.JWT, []spiffe.Option{spiffe.Socket("/run/agent.sock")}, "scheme"},
		"X.509, not an address":  {spiffe.X509, []spiffe.Option{spiffe.Socket("/run/agent.sock")}, "scheme"},
		"JWT, not an ID":         {spiffe.JWT, []spiffe.Option{spiffe.Socket(api.Address), spiffe.ID("orders")}, "scheme"},
		"JWT, another's ID":      {spiffe.JWT, []spiffe.Option{spiffe.Socket(api.Address), spiffe.ID("spiffe://prod.example.com/x")}, "InvalidArgument"},
		"X.509, another's ID":    {spiffe.X509, []spiffe.Option{spiffe.Socket(api.Address), spiffe.ID("spiffe://prod.example.com/x")}, "no X509-SVID with the ID"},
		"JWT, nobody is there":   {spiffe.JWT, []spiffe.Option{spiffe.Socket("unix:///nonexistent/agent.sock")}, "no such file"},
		"X.509, nobody is there": {spiffe.X509, []spiffe.Option{spiffe.Socket("unix:///nonexistent/agent.sock")}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := i.source("", test.option(t.Context(), test.with...)).Token()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q in it", err, test.want)
			}
		})
	}
	source := attach.ClientCredentials("", "", "", spiffe.JWT(t.Context(), spiffe.Socket(api.Address)), attach.TokenURL(i.URL))
	if _, err := source.Token(); err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("without an issuer: got %v", err)
	}
}

// A workload that the agent does not know yet gets its identity when it does.
func TestRefused(t *testing.T) {
	domain := spiffetest.NewDomain("prod.example.com")
	api := spiffetest.NewWorkloadAPI(t, domain, ordersID)
	api.Refuse(true)
	i := newIssuer(t, domain)
	jwt, x509 := i.source("", spiffe.JWT(t.Context(), spiffe.Socket(api.Address))), i.source("", spiffe.X509(t.Context(), spiffe.Socket(api.Address)))
	if _, err := jwt.Token(); err == nil || !strings.Contains(err.Error(), "no identity issued") {
		t.Errorf("got %v", err)
	}
	api.Refuse(false)
	must.Eventually(t, "a token", func() bool { _, err := jwt.Token(); return err == nil })
	must.Eventually(t, "a token", func() bool { _, err := x509.Token(); return err == nil })
}
