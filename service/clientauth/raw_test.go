package clientauth_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
)

// rawClients are clients whose IDs or secrets differ from their form-encoded forms.
func rawClients() registered {
	clients := registered{
		"plus": client("plus", "a+b/c="), "pct": client("pct", "100%"), "esc": client("esc", "a%2Bb"), "amp": client("amp", "a b+c"),
		"urn:svc": client("urn:svc", "chosen"), "x+y": client("x+y", generated), "a": client("a", "chosen"),
		"disabled": client("disabled", "a+b"),
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
		"a:chose+n": "", "a:chosen:": "", "disabled:a+b": "disabled", "disabled:b+a": "", "a:%63hosen%": "",
	} {
		a := newAuthenticator(rawClients())
		evidence := raw(credentials)
		got, method, err := a.Authenticate(t.Context(), evidence)
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
		if _, _, err := a.Authenticate(t.Context(), basic(id, secret)); err != nil {
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
	} {
		for _, id := range []string{"plus", "pct", "a", "disabled", "nobody"} {
			for _, secret := range secrets.list {
				a := newAuthenticator(rawClients())
				_, _, _ = a.Authenticate(t.Context(), basic("plus", "a+b/c="))
				c := count(a)
				_, _, err := a.Authenticate(t.Context(), raw(id+":"+secret))
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

// TestRawIsBounded expects nothing to be compared beyond the limits of failures, and malformed credentials to count as failures.
func TestRawIsBounded(t *testing.T) {
	for _, credentials := range []string{"pct:100%", "nobody:100%", "plus:a+b/c="} {
		a := newLimited(rawClients(), 3, 0)
		c := count(a)
		var codes []oauth.Code
		evidence := raw(credentials)
		evidence.Source = here
		for range 5 {
			_, _, err := a.Authenticate(t.Context(), evidence)
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
		busy.Go(func() { _, _, _ = a.Authenticate(t.Context(), post(string(rune('a'+i)), "busy")) })
		<-computing
	}
	_, _, err := a.Authenticate(t.Context(), raw("pct:100%"))
	close(end)
	busy.Wait()
	if oauth.From(err).Code != oauth.InvalidClient || len(compared) != 0 {
		t.Errorf("got %v and compared %q", err, compared)
	}
}
