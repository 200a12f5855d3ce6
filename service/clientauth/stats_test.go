package clientauth_test

import (
	"context"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientauth"
)

// Each check is counted by the kind of the secret, and Slow is called for each slow hash.
func TestStats(t *testing.T) {
	started, ended, refused := 0, 0, 0
	a := clientauth.New(clientauth.Config{
		Clients: registered{"a": client("a", "chosen", generated)}, Hasher: hasher, Uses: &uses{}, Failures: limiter(0, 0), Now: func() time.Time { return start },
		Slow: func(context.Context) func() { started++; return func() { ended++ } },
	})
	authenticate := func(id, secret string) {
		if _, err := a.Authenticate(t.Context(), post(id, secret)); err != nil {
			refused++
		}
	}
	for _, secret := range []string{"chosen", "chosen", "chosen", "guess", generated, generated, "guess", generated[:len(generated)-1]} {
		authenticate("a", secret)
	}
	authenticate("nobody", generated)
	want := clientauth.Stats{
		Generated: clientauth.Checks{Right: 2, Wrong: 1}, Chosen: clientauth.Checks{Right: 1, Wrong: 3}, Remembered: 2, Places: clientauth.MaxQueued,
	}
	if got := a.Stats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if started != 4 || ended != 4 || refused != 4 {
		t.Errorf("%d slow hashes started, %d ended, %d requests refused, want 4 of each", started, ended, refused)
	}
}
