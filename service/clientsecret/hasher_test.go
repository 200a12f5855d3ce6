package clientsecret_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
)

func TestHasher(t *testing.T) {
	if _, err := clientsecret.NewHasher(pepper[:31]); err == nil {
		t.Error("a key of 31 bytes passes")
	}
	hasher, other := must.Get(clientsecret.NewHasher(pepper)), must.Get(clientsecret.NewHasher(bytes.Repeat([]byte("q"), 32)))
	generated, chosen := clientsecret.New(), "service-secret-here"
	fast, slow := hasher.Hash(generated), hasher.Hash(chosen)
	if !strings.HasPrefix(string(fast), "$hmac-sha256$") || fast.Kind() != clientsecret.KindGenerated || fast != hasher.Hash(generated) {
		t.Errorf("generated: got %s", fast)
	}
	if !strings.HasPrefix(string(slow), "$argon2id$v=19$m=19456,t=2,p=1$") || slow.Kind() != clientsecret.KindChosen {
		t.Errorf("chosen: got %s", slow)
	}
	if slow == hasher.Hash(chosen) {
		t.Error("two hashes of one secret share a salt")
	}
	for name, test := range map[string]struct {
		hasher *clientsecret.Hasher
		hash   clientsecret.Hash
		secret string
		want   bool
	}{
		"generated":                 {hasher, fast, generated, true},
		"another generated":         {hasher, fast, clientsecret.New(), false},
		"under another key":         {other, fast, generated, false},
		"chosen":                    {hasher, slow, chosen, true},
		"chosen, under another key": {other, slow, chosen, true},
		"another chosen":            {hasher, slow, chosen + "x", false},
		"empty":                     {hasher, slow, "", false},
		"chosen on a fast hash":     {hasher, fast, chosen, false},
		"generated on a slow hash":  {hasher, slow, generated, false},
		"the hash as the secret":    {hasher, fast, string(fast), false},
		"no hash":                   {hasher, "", generated, false},
		"no hash, chosen":           {hasher, "", chosen, false},
		"cut off":                   {hasher, fast[:len(fast)-1], generated, false},
	} {
		if got := test.hasher.Matches(test.hash, test.secret); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
	if printed := fmt.Sprintf("%v %+v %#v", hasher, hasher, hasher); strings.Contains(printed, "112 112") ||
		strings.Contains(printed, "0x70, 0x70") {
		t.Errorf("printing shows the key: %s", printed)
	}
	// The hasher has its own copy of the key.
	key := bytes.Clone(pepper)
	keeps := must.Get(clientsecret.NewHasher(key))
	clear(key)
	if !keeps.Matches(fast, generated) {
		t.Error("the hasher shares the key with its caller")
	}
}

// withHashes returns secrets with the hashes.
func withHashes(hashes ...clientsecret.Hash) []clientsecret.Secret {
	secrets := make([]clientsecret.Secret, 0, len(hashes))
	for i, hash := range hashes {
		secrets = append(secrets, clientsecret.Secret{ID: fmt.Sprint(i), Hash: hash})
	}
	return secrets
}

func TestSharedSalt(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	saltOf := func(hash clientsecret.Hash) string { return strings.Split(string(hash), "$")[4] }
	first := hasher.Hash("first")
	others := withHashes(hasher.Hash(clientsecret.New()), imported["bcrypt, b"].hash, "malformed", first)
	second := hasher.Hash("second", others...)
	if saltOf(second) != saltOf(first) || second == first {
		t.Errorf("got %s for a secret beside %s, want another hash with its salt", second, first)
	}
	if hasher.Hash("first", others...) != first {
		t.Error("a secret beside itself: got another hash")
	}
	// The salt never comes from an imported hash.
	for name, others := range map[string][]clientsecret.Secret{
		"nothing": nil, "generated": withHashes(hasher.Hash(clientsecret.New())),
		"imported": withHashes(imported["bcrypt, b"].hash, imported["Argon2id"].hash),
	} {
		a, b := hasher.Hash("first", others...), hasher.Hash("first", others...)
		if saltOf(a) == saltOf(b) || a.Kind() != clientsecret.KindChosen {
			t.Errorf("beside %s: got %s and %s", name, a, b)
		}
	}
	if got := hasher.Hash(clientsecret.New(), others...); got.Kind() != clientsecret.KindGenerated {
		t.Errorf("a generated secret beside chosen ones: got %s", got)
	}
}

// TestMatch checks that comparing a presented secret costs one computation, however many secrets the client has and of
// whatever kind, and that an imported hash adds its own.
func TestMatch(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	const first, second, third, foreign = "first secret", "second secret", "third secret", "correct horse battery staple"
	generated, another := clientsecret.New(), clientsecret.New()
	one := hasher.Hash(first)
	two := hasher.Hash(second, withHashes(one)...)
	apart := hasher.Hash(third)
	bcrypt := imported["bcrypt, b"].hash
	many := withHashes(hasher.Hash(generated), one, two, hasher.Hash(another), hasher.Hash(third, withHashes(one)...))
	ended := withHashes(one, two, hasher.Hash(generated), bcrypt)
	for i := range ended {
		ended[i].ExpiresAt = start
	}
	overlap := withHashes(one, two)
	overlap[0].ExpiresAt, overlap[1].ExpiresAt = start, start.Add(time.Second)
	twice := withHashes(one, one)
	twice[0].ExpiresAt = start
	imports := withHashes(bcrypt, bcrypt, bcrypt, bcrypt, bcrypt, imported["OpenIddict"].hash)
	work := hasher.Count()
	slow, fast := clientsecret.Work{Slow: 1}, clientsecret.Work{Fast: 1}
	for name, test := range map[string]struct {
		secrets []clientsecret.Secret
		secret  string
		want    int
		work    clientsecret.Work
	}{
		"none":                        {nil, first, -1, slow},
		"none, generated":             {nil, generated, -1, fast},
		"empty":                       {withHashes(one), "", -1, slow},
		"one":                         {withHashes(one), first, 0, slow},
		"one, wrong":                  {withHashes(one), second, -1, slow},
		"malformed":                   {withHashes("", "$argon2id$", "$2b$"), first, -1, slow},
		"many, the first":             {many, first, 1, slow},
		"many, the second":            {many, second, 2, slow},
		"many, the third":             {many, third, 4, slow},
		"many, wrong":                 {many, "wrong", -1, slow},
		"many, generated":             {many, generated, 0, fast},
		"many, the other generated":   {many, another, 3, fast},
		"many, wrong generated":       {many, clientsecret.New(), -1, fast},
		"chosen for a generated":      {withHashes(hasher.Hash(generated)), first, -1, slow},
		"generated for a chosen":      {withHashes(one, bcrypt), generated, -1, fast},
		"all expired":                 {ended, first, -1, slow},
		"all expired, generated":      {ended, generated, -1, fast},
		"all expired, imported":       {ended, foreign, -1, slow},
		"expired and not, expired":    {overlap, first, -1, slow},
		"expired and not, the other":  {overlap, second, 1, slow},
		"twice, one expired":          {twice, first, 1, slow},
		"the same twice":              {withHashes(one, one), first, 0, slow},
		"of another salt":             {withHashes(one, apart), third, 1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"imported":                    {withHashes(bcrypt), foreign, 0, clientsecret.Work{Slow: 1, Foreign: 1}},
		"imported, wrong":             {withHashes(bcrypt), first, -1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"imported beside chosen":      {withHashes(one, bcrypt), foreign, 1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"chosen beside imported":      {withHashes(bcrypt, one), first, 1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"more imported than compared": {imports, "wrong", -1, clientsecret.Work{Slow: 1, Foreign: clientsecret.MaxForeign}},
	} {
		*work = clientsecret.Work{}
		if got := hasher.Match(test.secrets, test.secret, start); got != test.want || *work != test.work {
			t.Errorf("%s: got %d after %+v, want %d after %+v", name, got, *work, test.want, test.work)
		}
	}
}

func TestOutdated(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	one := hasher.Hash("first")
	secrets := withHashes(hasher.Hash(clientsecret.New()), one, hasher.Hash("second", withHashes(one)...), hasher.Hash("apart"), "malformed")
	want := []bool{false, false, false, true, false}
	for _, name := range []string{"bcrypt, b", "OpenIddict", "PBKDF2", "Argon2id"} {
		secrets, want = append(secrets, withHashes(imported[name].hash)...), append(want, true)
	}
	for i := range secrets {
		if got := clientsecret.Outdated(secrets, i); got != want[i] {
			t.Errorf("%s: got %t, want %t", secrets[i].Hash, got, want[i])
		}
	}
	if !clientsecret.Outdated(withHashes(imported["bcrypt, b"].hash), 0) {
		t.Error("an imported hash without others is not outdated")
	}
}

func TestMatchOfExpired(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	ended := withHashes(hasher.Hash("first"))
	ended[0].ExpiresAt = start
	if got := hasher.Match(ended, "first", time.Time{}); got != 0 {
		t.Errorf("at the zero time: got %d", got)
	}
}

// BenchmarkMatch compares wrong secrets with those of clients of all kinds. TestMatch checks what makes the times equal.
func BenchmarkMatch(b *testing.B) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	one, generated := hasher.Hash("first"), hasher.Hash(clientsecret.New())
	three := withHashes(one, hasher.Hash("second", withHashes(one)...), hasher.Hash("third", withHashes(one)...))
	expired := withHashes(one, generated)
	expired[0].ExpiresAt, expired[1].ExpiresAt = start, start
	clients := []struct {
		name    string
		secrets []clientsecret.Secret
	}{
		{"unknown", nil}, {"one", withHashes(one, generated)}, {"expired", expired},
		{"three chosen", three}, {"three generated", withHashes(generated, generated, generated)},
		{"OpenIddict", withHashes(imported["OpenIddict"].hash)}, {"Hydra", withHashes(imported["PBKDF2"].hash)},
	}
	for kind, secret := range map[string]string{"chosen": "guess", "generated": clientsecret.New()} {
		for _, client := range clients {
			b.Run(kind+"/"+client.name, func(b *testing.B) {
				for b.Loop() {
					if hasher.Match(client.secrets, secret, start) >= 0 {
						b.Fatal("a guess matches")
					}
				}
			})
		}
	}
}
