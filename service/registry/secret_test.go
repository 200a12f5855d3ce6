package registry_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/must"

	"github.com/grantorhq/grantor/service/registry"
)

func TestNewSecret(t *testing.T) {
	form := regexp.MustCompile(`^grantor_cs_[a-z2-7]{59}$`)
	seen := make(map[string]bool)
	for range 10_000 {
		secret := registry.NewSecret()
		if !form.MatchString(secret) || !registry.Generated(secret) || seen[secret] {
			t.Fatalf("%q: generated %v, seen %v", secret, registry.Generated(secret), seen[secret])
		}
		seen[secret] = true
	}
}

func TestGenerated(t *testing.T) {
	secret := registry.NewSecret()
	zeros := make([]byte, 32)
	if crafted := registry.CraftSecret(zeros, registry.SecretText(zeros)); !registry.Generated(crafted) {
		t.Fatalf("%q is well-formed", crafted)
	}
	// The last character of the random part has four spare bits, which decoding passes over.
	spare := registry.SecretText(zeros)
	spare = spare[:len(spare)-1] + "b"
	for name, s := range map[string]string{
		"empty":               "",
		"prefix":              registry.SecretPrefix,
		"no prefix":           strings.TrimPrefix(secret, registry.SecretPrefix),
		"other prefix":        "x" + secret[1:],
		"upper-case prefix":   "G" + secret[1:],
		"upper case":          registry.SecretPrefix + strings.ToUpper(secret[len(registry.SecretPrefix):]),
		"cut off":             secret[:len(secret)-1],
		"longer":              secret + "a",
		"blank before":        " " + secret,
		"line end behind":     secret + "\n",
		"wrong checksum":      secret[:len(secret)-7] + registry.NewSecret()[len(secret)-7:],
		"a letter changed":    changed(secret, 20),
		"last letter":         changed(secret, len(secret)-1),
		"of line ends":        registry.CraftSecret(nil, strings.Repeat("\n", 52)),
		"with line ends":      registry.CraftSecret(zeros[:30], registry.SecretText(zeros[:30])+"\r\n\r\n"),
		"spare bits used":     registry.CraftSecret(zeros, spare),
		"not of the alphabet": registry.CraftSecret(zeros, strings.Repeat("0", 52)),
	} {
		if registry.Generated(s) {
			t.Errorf("%s: %q passes as generated", name, s)
		}
	}
}

func changed(s string, i int) string {
	c := byte('a')
	if s[i] == c {
		c = 'b'
	}
	return s[:i] + string(c) + s[i+1:]
}

func FuzzGenerated(f *testing.F) {
	f.Add(registry.NewSecret())
	f.Add(registry.CraftSecret(nil, strings.Repeat("\n", 52)))
	f.Add("")
	form := regexp.MustCompile(`^grantor_cs_[a-z2-7]{59}$`)
	f.Fuzz(func(t *testing.T, s string) {
		if registry.Generated(s) && !form.MatchString(s) {
			t.Errorf("%q passes as generated", s)
		}
		random := make([]byte, 32)
		copy(random, s)
		if made := registry.CraftSecret(random, registry.SecretText(random)); !registry.Generated(made) {
			t.Errorf("%q does not pass as generated", made)
		}
	})
}

func TestHasher(t *testing.T) {
	if _, err := registry.NewHasher(pepper[:31]); err == nil {
		t.Error("a key of 31 bytes passes")
	}
	hasher, other := must.Get(registry.NewHasher(pepper)), must.Get(registry.NewHasher(bytes.Repeat([]byte("q"), 32)))
	generated, chosen := registry.NewSecret(), "service-secret-here"
	fast, slow := hasher.Hash(generated), hasher.Hash(chosen)
	if !strings.HasPrefix(string(fast), "$hmac-sha256$") || fast.Kind() != registry.KindGenerated || fast != hasher.Hash(generated) {
		t.Errorf("generated: got %s", fast)
	}
	if !strings.HasPrefix(string(slow), "$argon2id$v=19$m=19456,t=2,p=1$") || slow.Kind() != registry.KindChosen {
		t.Errorf("chosen: got %s", slow)
	}
	if slow == hasher.Hash(chosen) {
		t.Error("two hashes of one secret share a salt")
	}
	for name, test := range map[string]struct {
		hasher *registry.Hasher
		hash   registry.Hash
		secret string
		want   bool
	}{
		"generated":                 {hasher, fast, generated, true},
		"another generated":         {hasher, fast, registry.NewSecret(), false},
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
	// The hasher keeps its key though the caller's is gone.
	key := bytes.Clone(pepper)
	keeps := must.Get(registry.NewHasher(key))
	clear(key)
	if !keeps.Matches(fast, generated) {
		t.Error("the key is not the hasher's own")
	}
}

// beside gives secrets with the hashes.
func beside(hashes ...registry.Hash) []registry.Secret {
	secrets := make([]registry.Secret, 0, len(hashes))
	for i, hash := range hashes {
		secrets = append(secrets, registry.Secret{ID: fmt.Sprint(i), Hash: hash})
	}
	return secrets
}

func TestSharedSalt(t *testing.T) {
	hasher := must.Get(registry.NewHasher(pepper))
	saltOf := func(hash registry.Hash) string { return strings.Split(string(hash), "$")[4] }
	first := hasher.Hash("first")
	others := beside(hasher.Hash(registry.NewSecret()), imported["bcrypt, b"].hash, "malformed", first)
	second := hasher.Hash("second", others...)
	if saltOf(second) != saltOf(first) || second == first {
		t.Errorf("got %s beside %s, want another with its salt", second, first)
	}
	if hasher.Hash("first", others...) != first {
		t.Error("the same secret beside itself has another hash")
	}
	// Neither a hash from elsewhere nor another client's gives its salt.
	for name, others := range map[string][]registry.Secret{
		"nothing": nil, "generated": beside(hasher.Hash(registry.NewSecret())),
		"imported": beside(imported["bcrypt, b"].hash, imported["Argon2id"].hash),
	} {
		a, b := hasher.Hash("first", others...), hasher.Hash("first", others...)
		if saltOf(a) == saltOf(b) || a.Kind() != registry.KindChosen {
			t.Errorf("beside %s: got %s and %s", name, a, b)
		}
	}
	if got := hasher.Hash(registry.NewSecret(), others...); got.Kind() != registry.KindGenerated {
		t.Errorf("a generated secret beside chosen ones: got %s", got)
	}
}

// One presented secret costs one computation, however many secrets the client has and of whatever kind; a hash from
// elsewhere costs its own besides.
func TestMatch(t *testing.T) {
	hasher := must.Get(registry.NewHasher(pepper))
	const first, second, third, foreign = "first secret", "second secret", "third secret", "correct horse battery staple"
	generated, another := registry.NewSecret(), registry.NewSecret()
	one := hasher.Hash(first)
	two := hasher.Hash(second, beside(one)...)
	apart := hasher.Hash(third)
	bcrypt := imported["bcrypt, b"].hash
	many := beside(hasher.Hash(generated), one, two, hasher.Hash(another), hasher.Hash(third, beside(one)...))
	ended := beside(one, two, hasher.Hash(generated), bcrypt)
	for i := range ended {
		ended[i].ExpiresAt = start
	}
	overlap := beside(one, two)
	overlap[0].ExpiresAt, overlap[1].ExpiresAt = start, start.Add(time.Second)
	twice := beside(one, one)
	twice[0].ExpiresAt = start
	imports := beside(bcrypt, bcrypt, bcrypt, bcrypt, bcrypt, imported["OpenIddict"].hash)
	work := hasher.Count()
	slow, fast := registry.Work{Slow: 1}, registry.Work{Fast: 1}
	for name, test := range map[string]struct {
		secrets []registry.Secret
		secret  string
		want    int
		work    registry.Work
	}{
		"none":                        {nil, first, -1, slow},
		"none, generated":             {nil, generated, -1, fast},
		"empty":                       {beside(one), "", -1, slow},
		"one":                         {beside(one), first, 0, slow},
		"one, wrong":                  {beside(one), second, -1, slow},
		"malformed":                   {beside("", "$argon2id$", "$2b$"), first, -1, slow},
		"many, the first":             {many, first, 1, slow},
		"many, the second":            {many, second, 2, slow},
		"many, the third":             {many, third, 4, slow},
		"many, wrong":                 {many, "wrong", -1, slow},
		"many, generated":             {many, generated, 0, fast},
		"many, the other generated":   {many, another, 3, fast},
		"many, wrong generated":       {many, registry.NewSecret(), -1, fast},
		"chosen for a generated":      {beside(hasher.Hash(generated)), first, -1, slow},
		"generated for a chosen":      {beside(one, bcrypt), generated, -1, fast},
		"all expired":                 {ended, first, -1, slow},
		"all expired, generated":      {ended, generated, -1, fast},
		"all expired, imported":       {ended, foreign, -1, slow},
		"expired and not, expired":    {overlap, first, -1, slow},
		"expired and not, the other":  {overlap, second, 1, slow},
		"twice, one expired":          {twice, first, 1, slow},
		"the same twice":              {beside(one, one), first, 0, slow},
		"of another salt":             {beside(one, apart), third, 1, registry.Work{Slow: 1, Foreign: 1}},
		"imported":                    {beside(bcrypt), foreign, 0, registry.Work{Slow: 1, Foreign: 1}},
		"imported, wrong":             {beside(bcrypt), first, -1, registry.Work{Slow: 1, Foreign: 1}},
		"imported beside chosen":      {beside(one, bcrypt), foreign, 1, registry.Work{Slow: 1, Foreign: 1}},
		"chosen beside imported":      {beside(bcrypt, one), first, 1, registry.Work{Slow: 1, Foreign: 1}},
		"more imported than compared": {imports, "wrong", -1, registry.Work{Slow: 1, Foreign: registry.MostForeign}},
	} {
		*work = registry.Work{}
		if got := hasher.Match(test.secrets, test.secret, start); got != test.want || *work != test.work {
			t.Errorf("%s: got %d after %+v, want %d after %+v", name, got, *work, test.want, test.work)
		}
	}
}

func TestOutdated(t *testing.T) {
	hasher := must.Get(registry.NewHasher(pepper))
	one := hasher.Hash("first")
	secrets := beside(hasher.Hash(registry.NewSecret()), one, hasher.Hash("second", beside(one)...), hasher.Hash("apart"), "malformed")
	want := []bool{false, false, false, true, false}
	for _, name := range []string{"bcrypt, b", "OpenIddict", "PBKDF2", "Argon2id"} {
		secrets, want = append(secrets, beside(imported[name].hash)...), append(want, true)
	}
	for i := range secrets {
		if got := registry.Outdated(secrets, i); got != want[i] {
			t.Errorf("%s: got %t, want %t", secrets[i].Hash, got, want[i])
		}
	}
	if !registry.Outdated(beside(imported["bcrypt, b"].hash), 0) {
		t.Error("a hash from elsewhere is not outdated where there is no other")
	}
}

func TestMatchOfExpired(t *testing.T) {
	hasher := must.Get(registry.NewHasher(pepper))
	ended := beside(hasher.Hash("first"))
	ended[0].ExpiresAt = start
	if got := hasher.Match(ended, "first", time.Time{}); got != 0 {
		t.Errorf("at the zero time: got %d", got)
	}
}

// BenchmarkMatch compares wrong secrets with those of clients of all kinds; see TestMatch for what makes the times alike.
func BenchmarkMatch(b *testing.B) {
	hasher := must.Get(registry.NewHasher(pepper))
	one, generated := hasher.Hash("first"), hasher.Hash(registry.NewSecret())
	three := beside(one, hasher.Hash("second", beside(one)...), hasher.Hash("third", beside(one)...))
	expired := beside(one, generated)
	expired[0].ExpiresAt, expired[1].ExpiresAt = start, start
	clients := []struct {
		name    string
		secrets []registry.Secret
	}{
		{"unknown", nil}, {"one", beside(one, generated)}, {"expired", expired},
		{"three chosen", three}, {"three generated", beside(generated, generated, generated)},
		{"OpenIddict", beside(imported["OpenIddict"].hash)}, {"Hydra", beside(imported["PBKDF2"].hash)},
	}
	for kind, secret := range map[string]string{"chosen": "guess", "generated": registry.NewSecret()} {
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
