//go:build conformance

package conformance_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// browserCall is what became of a call of testdata/npm/page.js: a token, or an error.
type browserCall struct {
	Type   string `json:"type"`
	Scope  string `json:"scope"`
	Token  string `json:"token"`
	Error  string `json:"error"`
	Reason string `json:"reason"`
	Text   string `json:"text"`
	Nonce  string `json:"nonce"`
}

// browserCalls are the calls of a page by one transport.
type browserCalls struct {
	Token    browserCall `json:"token"`
	Basic    browserCall `json:"basic"`
	Wrong    browserCall `json:"wrong"`
	Missing  browserCall `json:"missing"`
	Unproven browserCall `json:"unproven"`
	Bound    browserCall `json:"bound"`
	Issuer   any         `json:"issuer"`
	Keys     any         `json:"keys"`
}

// TestConformanceBrowser calls an issuer from a page of another origin, in Chromium, by both transports of connect-web. The browser
// lets the page read the answers if its origin is named, and none otherwise.
func TestConformanceBrowser(t *testing.T) {
	dir := workingCopy(t, "npm", "node", "npm", "chromium")
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	pages := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(pages.Close)
	chromium, err := exec.LookPath("chromium")
	must.Succeed(t, err)
	for _, path := range issuerPaths {
		for _, named := range []bool{true, false} {
			options := []tokentest.Option{tokentest.Path(path), tokentest.DPoPNonces()}
			if named {
				options = append(options, tokentest.CORSOrigins(pages.URL))
			}
			issuer := newIssuer(t, options...)
			output := run(t, dir, []string{
				"CHROMIUM=" + chromium, "PAGE=" + pages.URL + "/page.html", "ISSUER=" + issuer.URL, "CLIENT_ID=svc",
				"CLIENT_SECRET=" + tokentest.Secret, "SCOPE=api1", "FILES=" + descriptors(t),
			}, "node", "browser.js")
			var got struct {
				Browser string                  `json:"browser"`
				Results map[string]browserCalls `json:"results"`
				Blocked int                     `json:"blocked"`
			}
			must.Succeed(t, json.Unmarshal([]byte(output), &got))
			t.Logf("Chromium %s, %d requests blocked", got.Browser, got.Blocked)
			if len(got.Results) != 4 || (got.Blocked == 0) != named {
				t.Errorf("path %q, origin named: %t: got %d transports and %d requests blocked", path, named, len(got.Results), got.Blocked)
			}
			for transport, calls := range got.Results {
				if named {
					calls.wantAnswers(t, transport, issuer.URL)
				} else {
					calls.wantBlocked(t, transport)
				}
			}
		}
	}
}

// wantAnswers checks that the page could read every answer.
func (c *browserCalls) wantAnswers(t *testing.T, transport, issuer string) {
	t.Helper()
	for name, token := range map[string]browserCall{"secret": c.Token, "Basic": c.Basic, "DPoP": c.Bound} {
		want := "Bearer"
		if name == "DPoP" {
			want = "DPoP"
		}
		if token.Type != want || token.Scope != "api1" || strings.Count(token.Token, ".") != 2 {
			t.Errorf("%s, %s: got %+v", transport, name, token)
		}
	}
	for reason, got := range map[string]struct {
		call browserCall
		code string
	}{
		"invalid_client": {c.Wrong, "Unauthenticated"}, "invalid_request": {c.Missing, "InvalidArgument"}, "use_dpop_nonce": {c.Unproven, "InvalidArgument"},
	} {
		if got.call.Error != got.code || got.call.Reason != reason || got.call.Text == "" || (got.call.Nonce != "") != (reason == "use_dpop_nonce") {
			t.Errorf("%s: got %+v, want %s with %s", transport, got.call, got.code, reason)
		}
	}
	if c.Issuer != issuer || c.Keys != true {
		t.Errorf("%s: got the metadata of %v, keys: %v", transport, c.Issuer, c.Keys)
	}
}

// wantBlocked checks that the page learned nothing.
func (c *browserCalls) wantBlocked(t *testing.T, transport string) {
	t.Helper()
	for _, call := range []browserCall{c.Token, c.Basic, c.Wrong, c.Missing, c.Unproven, c.Bound} {
		if call.Token != "" || call.Error == "" || call.Reason != "" || !strings.Contains(call.Text, "Failed to fetch") {
			t.Errorf("%s: got %+v, want a failed fetch", transport, call)
		}
	}
	if _, ok := c.Issuer.(string); ok || c.Keys == true {
		t.Errorf("%s: got the metadata of %v, keys: %v", transport, c.Issuer, c.Keys)
	}
}

// descriptors returns the files of the service and of its errors, as a FileDescriptorSet in base64.
func descriptors(t *testing.T) string {
	t.Helper()
	set, seen := &descriptorpb.FileDescriptorSet{}, make(map[string]bool)
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(grantorv1.File_grantor_v1_token_service_proto)
	add(errdetails.File_google_rpc_error_details_proto)
	return base64.StdEncoding.EncodeToString(must.Get(proto.Marshal(set)))
}
