package remote_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
)

const basic, post = attach.ClientSecretBasic, attach.ClientSecretPost

// TestAuthenticate counts the requests until the method of a client is known, and the next one.
func TestAuthenticate(t *testing.T) {
	both := oauth.Words{"private_key_jwt", post, basic}
	for _, c := range []struct {
		name, chosen string
		offered      oauth.Words
		refuses      []string
		with         codes.Code
		first, next  []string
	}{
		{"the preferred method", "", both, []string{post}, codes.Unauthenticated, []string{basic}, []string{basic}},
		{"the other method", "", both, []string{basic}, codes.Unauthenticated, []string{basic, post}, []string{post}},
		{"the other method, at the limit of failures", "", both, []string{basic}, codes.ResourceExhausted, []string{basic, post}, []string{post}},
		{"a wrong secret", "", both, []string{basic, post}, codes.Unauthenticated, []string{basic, post}, []string{basic}},
		{"a chosen method", post, both, nil, codes.OK, []string{post}, []string{post}},
		{"a wrong choice", basic, both, []string{basic}, codes.Unauthenticated, []string{basic}, []string{basic}},
		{"the only one that is offered", "", oauth.Words{post}, []string{post}, codes.Unauthenticated, []string{post}, []string{post}},
		{"an issuer without a list", "", nil, []string{basic}, codes.Unauthenticated, []string{basic}, []string{basic}},
		{"an issuer that does not answer", "", both, []string{basic, post}, codes.Unavailable, []string{basic}, []string{basic}},
	} {
		a := remote.NewAuthentication(remote.Credentials{ID: "a", Secret: "b", Method: c.chosen}, &oauth.Metadata{TokenEndpointAuthMethods: c.offered})
		for _, want := range [][]string{c.first, c.next} {
			var tried []string
			got := remote.Authenticate(a, func(method string) (string, remote.Outcome) {
				tried = append(tried, method)
				if slices.Contains(c.refuses, method) {
					return method, remote.OutcomeOf(c.with)
				}
				return method, remote.Accepted
			})
			if !slices.Equal(tried, want) || slices.Contains(c.refuses, got) && got != want[0] {
				t.Errorf("%s: tried %v with the result of %s, want %v", c.name, tried, got, want)
			}
		}
	}
}

// TestAuthenticateOnce makes many requests at once, of which one finds out the method.
func TestAuthenticateOnce(t *testing.T) {
	a := remote.NewAuthentication(remote.Credentials{ID: "a", Secret: "b"}, &oauth.Metadata{TokenEndpointAuthMethods: oauth.Words{basic, post}})
	var mu sync.Mutex
	var calling sync.WaitGroup
	tried := make(map[string]int)
	for range 100 {
		calling.Go(func() {
			remote.Authenticate(a, func(method string) (struct{}, remote.Outcome) {
				mu.Lock()
				defer mu.Unlock()
				tried[method]++
				if method == basic {
					return struct{}{}, remote.Refused
				}
				return struct{}{}, remote.Accepted
			})
		})
	}
	calling.Wait()
	if tried[basic] != 1 || tried[post] != 100 {
		t.Errorf("tried %v, want one refusal", tried)
	}
}

// TestCredentialsAreFormEncoded sends an ID and a secret with characters that both encodings change.
func TestCredentialsAreFormEncoded(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		_ = r.ParseForm()
		got = fmt.Sprintf("%s %s %s %s %s", id, secret, r.PostForm.Get("client_id"), r.PostForm.Get("client_secret"), r.PostForm.Get("token"))
	}))
	t.Cleanup(server.Close)
	credentials := remote.Credentials{ID: "a:b", Secret: "c+%&d"}
	for method, want := range map[string]string{basic: "a%3Ab c%2B%25%26d   t", post: "  a:b c+%&d t"} {
		request, err := credentials.NewRequest(t.Context(), method, server.URL, "token=t")
		if err != nil {
			t.Fatal(err)
		}
		answer, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if got != want {
			t.Errorf("%s: got %q, want %q", method, got, want)
		}
	}
}
