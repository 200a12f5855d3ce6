package attach_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/interceptors/attach"
)

// TestURLsInErrors checks that no error shows the userinfo or the query of a URL.
func TestURLsInErrors(t *testing.T) {
	const endpoint = "https://a:s3cret@auth.example.com/token?key=s3cret#s3cret"
	down := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("down") })}
	late := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, context.DeadlineExceeded })}
	for name, test := range map[string]struct {
		url    string
		client *http.Client
	}{
		"unreachable":     {endpoint, down},
		"late":            {endpoint, late},
		"too long":        {endpoint, answering(200, strings.Repeat("x", 65<<10))},
		"status":          {endpoint, answering(404, "")},
		"no endpoint":     {endpoint, answering(200, `{"issuer":"`+endpoint+`"}`)},
		"plaintext":       {strings.Replace(endpoint, "https", "http", 1), down},
		"malformed":       {"https://a:%zzs3cret@auth.example.com", down},
		"without a slash": {"https:a:s3cret@auth.example.com", down},
	} {
		for kind, options := range map[string][]attach.Option{
			"token URL":           {attach.TokenURL(test.url)},
			"token URL, anywhere": {attach.TokenURL(test.url), attach.AllowInsecurePlaintextToRemoteHosts()},
			"issuer":              nil,
		} {
			ctx, cancel := context.WithCancel(t.Context())
			_, err := attach.ClientCredentials(test.url, "a", "b", append(options, attach.HTTPClient(test.client))...).TokenContext(ctx)
			cancel()
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s, %s: got %v, want an error without the secrets of the URL", name, kind, err)
			}
			if name == "late" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s, %s: got %v, want %v in it", name, kind, err, context.DeadlineExceeded)
			}
		}
	}
}
