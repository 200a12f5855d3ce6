package rest_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/rest"
)

// FuzzReadForm compares the form decoder with a simple one that splits the body by hand.
func FuzzReadForm(f *testing.F) {
	for _, body := range []string{
		"", "&&&", "=", "grant_type=client_credentials&client_id=svc&client_secret=a%2Bb+c&scope=api1", "resource=a&resource=b&resource=",
		"scope=a&scope=b", "client%5Fid=a", "clientId=a&client_id", "a=%zz", "a=%", "a;b=c", "a=%00", "a=%ff", "x=1&x=2", "audience=%F0%9F%98%80",
		strings.Repeat("&", 64), strings.Repeat("a", 65537), "client_id=\xff", "grantor.v1.client_id=a&1=b&[client_id]=c",
	} {
		f.Add("application/x-www-form-urlencoded", []byte(body))
	}
	f.Add("application/x-www-form-urlencoded; charset=utf-8", []byte("scope=a"))
	f.Add("application/json", []byte("{}"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/connect/token", bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		m, status, refusal := rest.ReadForm(r)
		if refusal != nil {
			wantFormRefusal(t, status, refusal, len(body))
			return
		}
		if len(body) > 65536 || bytes.Count(body, []byte("&")) > 63 {
			t.Fatalf("%d bytes in %d parameters were accepted", len(body), bytes.Count(body, []byte("&"))+1)
		}
		wantMessage(t, m, split(t, string(body)))
	})
}

func wantFormRefusal(t *testing.T, status int, refusal *oauth.Error, size int) {
	t.Helper()
	if status != http.StatusBadRequest && (status != http.StatusRequestEntityTooLarge || size <= 65536) {
		t.Errorf("got status %d for %d bytes", status, size)
	}
	if refusal.Code != oauth.InvalidRequest || !described.MatchString(string(refusal.Text)) {
		t.Errorf("got %v, want invalid_request in the characters of RFC 6749 section 5.2", refusal)
	}
}

// split decodes a form that was accepted, without its empty values (RFC 6749 §3.2). The test fails if the form should
// have been refused.
func split(t *testing.T, body string) url.Values {
	t.Helper()
	values, sent := url.Values{}, map[string]int{}
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		for _, part := range []*string{&name, &value} {
			unescaped, err := url.QueryUnescape(*part)
			if err != nil || !utf8.ValidString(unescaped) || strings.Contains(unescaped, "\x00") {
				t.Fatalf("%q was accepted: %v", pair, err)
			}
			*part = unescaped
		}
		if sent[name]++; sent[name] > 1 && name != "resource" {
			t.Fatalf("%q was accepted %d times", name, sent[name])
		}
		if value != "" {
			values.Add(name, value)
		}
	}
	return values
}

// wantMessage checks that each field equals the parameter of its name, and that there are no others.
func wantMessage(t *testing.T, m *grantorv1.IssueTokenRequest, values url.Values) {
	t.Helper()
	for name, got := range map[string]string{
		"grant_type": m.GetGrantType(), "client_id": m.GetClientId(), "client_secret": m.GetClientSecret(),
		"scope": m.GetScope(), "audience": m.GetAudience(),
	} {
		if want := values.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if want := values["resource"]; !slices.Equal(m.GetResource(), want) {
		t.Errorf("resource: got %q, want %q", m.GetResource(), want)
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		t.Error("got unknown fields in the message")
	}
}
