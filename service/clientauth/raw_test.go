package clientauth_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// rawClients are clients whose IDs or secrets differ from their form-encoded forms.
func rawClients() registered {
	clients := registered{
		"plus": client("plus", "a+b/c="), "pct": client("pct", "100%"), "esc": client("esc", "a%2Bb"), "amp": client("amp", "a b+c"),
		"urn:svc": client("urn:svc", "chosen"), "x+y": client("x+y", generated), "a": client("a", "chosen"),
		"disabled": client("disabled", "a+b"), "a:b:c": client("a:b:c", "chosen"), "p": client("p", "a:b+c"),
	}
	clients["disabled"].Disabled = true
	return clients
}

// TestRawBasic sends credentials without form-encoding. The caller gets the same answer for all, and the cause reports which
// would have been right.
func TestRawBasic(t *testing.T) {
	for credentials, right := range map[string]string{
		"plus:a+b/c=": "plus", "pct:100%": "pct", "esc:a%2Bb": "esc", "x+y:" + generated: "x+y", "urn:svc:chosen": "urn:svc",
		"plus:a+b": "", "pct:10%": "", "nobody:a+b": "", "nobody:100%": "", "nobody:a:b:c:d:e:f": "", "amp:a+b+c": "",
		"a:b:c:chosen": "a:b:c", "a:b:c:chosen:": "", "urn:svc:cho:sen": "", "urn:svc:%zz": "", "p:a:b+c": "p",
		"a:chose+n": "", "a:chosen:": "", "disabled:a+b": "disabled", "disabled:b+a": "", "a:%63hosen%": "",
	} {
		a := newAuthenticator(rawClients())
		evidence := raw(credentials)
		proven, err := a.Authenticate(t.Context(), evidence)
		got, method := proven.Client, proven.Method
		refusal := oauth.From(err)
		if got != nil || method != oauth.ClientSecretBasic || refusal.Code != oauth.InvalidClient || refusal.Text != "Client authentication failed." {
			t.Errorf("%s: got %v, %s, %+v", credentials, got, method, refusal)
			continue
		}
		cause := refusal.Cause.Error()
		if strings.Contains(cause, "form-decoding") != (right != "") || right != "" && !strings.Contains(cause, `right for client "`+right+`"`) {
			t.Errorf("%s: got the cause %s, want client %q", credentials, cause, right)
		}
		if strings.Contains(cause, generated) || strings.Contains(cause, "a+b") {
			t.Errorf("%s: the cause has the secret: %s", credentials, cause)
		}
		if id, _, _ := strings.Cut(credentials, ":"); !strings.Contains(id, "+") && evidence.ClaimedID() != id {
			t.Errorf("%s: got the claimed ID %s", credentials, evidence.ClaimedID())
		}
	}
	a := newAuthenticator(rawClients())
	for id, secret := range map[string]string{"plus": "a+b/c=", "pct": "100%", "esc": "a%2Bb", "amp": "a b+c", "urn:svc": "chosen", "x+y": generated} {
		if _, err := a.Authenticate(t.Context(), basic(id, secret)); err != nil {
			t.Errorf("%s, encoded: %v", id, err)
		}
	}
}

// TestRawSameWork expects the work for credentials that were not encoded to depend on what was sent alone, also where the
// secret was proven before.
func TestRawSameWork(t *testing.T) {
	for _, secrets := range []struct {
		list       []string
		slow, fast int64
	}{
		{[]string{"a+b/c=", "z+b/c=", "a+b/c=%41"}, 2, 0},
		{[]string{"100%", "%zz", "%"}, 1, 0},
		{[]string{"chosen:x", "chosen:y"}, 2, 0},
		{[]string{"chosen", "chosen%41"[:6]}, 1, 0},
		{[]string{"svc:" + generated, "no:" + generated}, 1, 1},
		{[]string{"svc:x:" + generated + "+", "svc:" + generated + "%41"}, 2, 0},
		{[]string{"svc:100%", "svc:" + generated + "%"}, 1, 0},
	} {
		for _, id := range []string{"plus", "pct", "a", "disabled", "urn", "nobody"} {
			for _, secret := range secrets.list {
				a := newAuthenticator(rawClients())
				_, _ = a.Authenticate(t.Context(), basic("plus", "a+b/c="))
				c := count(a)
				_, err := a.Authenticate(t.Context(), raw(id+":"+secret))
				if err == nil {
					continue // a with its secret, which needs no encoding
				}
				if slow, fast := c.slow.Load(), c.fast.Load(); slow != secrets.slow || fast != secrets.fast {
					t.Errorf("%s:%s: %d slow and %d fast hashes, want %d and %d", id, secret, slow, fast, secrets.slow, secrets.fast)
				}
			}
		}
	}
}

// lookups counts the lookups of clients.
type lookups struct {
	registered
	n atomic.Int64
}

func (l *lookups) Client(ctx context.Context, id oauth.ClientID) (*registry.Client, error) {
	l.n.Add(1)
	return l.registered.Client(ctx, id)
}

// TestRawSameLookups expects the number of lookups to depend on what was sent alone, whether or not the client exists: each
// may be a read of the store, and the time until the answer would reveal it.
func TestRawSameLookups(t *testing.T) {
	clients := &lookups{registered: rawClients()}
	plain := []string{"a", "plus", "disabled", "nobody"}
	colon := []string{"urn:svc", "urn:nobody", "no:body"}
	for _, test := range []struct {
		ids     []string
		secrets []string
		want    int64
	}{
		{plain, []string{"x", generated, "x:"}, 1},
		{plain, []string{"100%", "%zz", "r1:r2:r3:%zz", "r1:" + generated + "%"}, 1},
		{plain, []string{"z+b/c", "x%41", "a+b:c:d:e", "r1:r2:r3", "r1:r2:r3:" + generated}, 2},
		{plain, []string{""}, 0},
		{colon, []string{"x", generated, "r1:r2", "z+b"}, 2},
		{colon, []string{"100%", "r1:%zz"}, 1},
		{[]string{"x+y", "n+o"}, []string{"x", "r1:r2", "100%"}, 1}, // decoded it has a blank, and is no ID
		{[]string{"x%79", "n%6f"}, []string{"x", "r1:r2"}, 2},
	} {
		for _, id := range test.ids {
			for _, secret := range test.secrets {
				a := clientauth.New(clientauth.Config{
					Clients: clients, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Now: func() time.Time { return start },
				})
				a.SetFind(func([]clientsecret.Secret, string, time.Time) int { return -1 })
				clients.n.Store(0)
				_, err := a.Authenticate(t.Context(), raw(id+":"+secret))
				if got := clients.n.Load(); oauth.From(err).Code != oauth.InvalidClient || got != test.want {
					t.Errorf("%s:%s: got %v and %d lookups, want %d", id, secret, err, got, test.want)
				}
			}
		}
	}
}

// TestBasicIsASCII expects blanks and tabs alone to be white space around the credentials, and ASCII letters alone to be those
// of the scheme.
func TestBasicIsASCII(t *testing.T) {
	a := newAuthenticator(rawClients())
	encoded := strings.TrimPrefix(basic("x+y", generated).Authorization, "Basic ")
	for header, ok := range map[string]bool{
		"Basic\t" + encoded + " \t": true, "Basic \u00a0" + encoded: false, "Basic\u00a0" + encoded: false, "Basic " + encoded + "\u00a0": false,
		"Basic \u0085" + encoded: false, "Basic " + encoded + "\u2003": false, "Basic " + encoded + "\v": false, "Bas\u0130c " + encoded: false,
	} {
		if got, err := a.Authenticate(t.Context(), clientauth.Evidence{Authorization: header}); (err == nil) != ok || !ok && (got.Client != nil || oauth.From(err).Code != oauth.InvalidClient) {
			t.Errorf("%q: got %v and %v, want ok %v", header, got, err, ok)
		}
	}
}

// TestRawIsBounded expects nothing to be compared beyond the limits of failures, and malformed credentials to count as failures.
func TestRawIsBounded(t *testing.T) {
	for _, credentials := range []string{"pct:100%", "nobody:100%", "plus:a+b/c="} {
		a := newLimited(rawClients(), 3, 0)
		c := count(a)
		var codes []oauth.Code
		evidence := raw(credentials)
		evidence.Source = here
		for range 5 {
			_, err := a.Authenticate(t.Context(), evidence)
			codes = append(codes, oauth.From(err).Code)
			if len(codes) == 3 {
				c.slow.Store(0)
			}
		}
		if codes[2] != oauth.InvalidClient || codes[3] != oauth.TemporarilyUnavailable || c.slow.Load() != 0 {
			t.Errorf("%s: got %v and %d slow hashes beyond the limit", credentials, codes, c.slow.Load())
		}
	}
}

// TestRawYields expects no comparison while all processors compute hashes.
func TestRawYields(t *testing.T) {
	a := newAuthenticator(rawClients())
	computing, end := make(chan struct{}), make(chan struct{})
	var compared []string
	a.SetFind(func(_ []clientsecret.Secret, secret string, _ time.Time) int {
		if secret == "busy" {
			computing <- struct{}{}
			<-end
			return -1
		}
		compared = append(compared, secret)
		return -1
	})
	var busy sync.WaitGroup
	for i := range clientauth.Parallel() {
		busy.Go(func() { _, _ = a.Authenticate(t.Context(), post(string(rune('a'+i)), "busy")) })
		<-computing
	}
	_, err := a.Authenticate(t.Context(), raw("pct:100%"))
	close(end)
	busy.Wait()
	if oauth.From(err).Code != oauth.InvalidClient || len(compared) != 0 {
		t.Errorf("got %v and compared %q", err, compared)
	}
}
