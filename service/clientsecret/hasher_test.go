package clientsecret_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
)

func TestNew(t *testing.T) {
	form := regexp.MustCompile(`^grantor_cs_[a-z2-7]{59}$`)
	seen := make(map[string]bool)
	for range 10_000 {
		secret := clientsecret.New()
		if !form.MatchString(secret) || !clientsecret.Generated(secret) || seen[secret] {
			t.Fatalf("%q: generated %v, seen %v", secret, clientsecret.Generated(secret), seen[secret])
		}
		seen[secret] = true
	}
}

func TestGenerated(t *testing.T) {
	secret := clientsecret.New()
	zeros := make([]byte, 32)
	if crafted := clientsecret.CraftSecret(zeros, clientsecret.Encode(zeros)); !clientsecret.Generated(crafted) {
		t.Fatalf("%q is well-formed", crafted)
	}
	// The last character of the random part has four spare bits, which decoding passes over.
	spare := clientsecret.Encode(zeros)
	spare = spare[:len(spare)-1] + "b"
	for name, s := range map[string]string{
		"empty":               "",
		"prefix":              clientsecret.Prefix,
		"no prefix":           strings.TrimPrefix(secret, clientsecret.Prefix),
		"other prefix":        "x" + secret[1:],
		"upper-case prefix":   "G" + secret[1:],
		"upper case":          clientsecret.Prefix + strings.ToUpper(secret[len(clientsecret.Prefix):]),
		"cut off":             secret[:len(secret)-1],
		"longer":              secret + "a",
		"blank before":        " " + secret,
		"line end behind":     secret + "\n",
		"wrong checksum":      secret[:len(secret)-7] + clientsecret.New()[len(secret)-7:],
		"a letter changed":    changed(secret, 20),
		"last letter":         changed(secret, len(secret)-1),
		"of line ends":        clientsecret.CraftSecret(nil, strings.Repeat("\n", 52)),
		"with line ends":      clientsecret.CraftSecret(zeros[:30], clientsecret.Encode(zeros[:30])+"\r\n\r\n"),
		"spare bits used":     clientsecret.CraftSecret(zeros, spare),
		"not of the alphabet": clientsecret.CraftSecret(zeros, strings.Repeat("0", 52)),
	} {
		if clientsecret.Generated(s) {
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
	f.Add(clientsecret.New())
	f.Add(clientsecret.CraftSecret(nil, strings.Repeat("\n", 52)))
	f.Add("")
	form := regexp.MustCompile(`^grantor_cs_[a-z2-7]{59}$`)
	f.Fuzz(func(t *testing.T, s string) {
		if clientsecret.Generated(s) && !form.MatchString(s) {
			t.Errorf("%q passes as generated", s)
		}
		random := make([]byte, 32)
		copy(random, s)
		if made := clientsecret.CraftSecret(random, clientsecret.Encode(random)); !clientsecret.Generated(made) {
			t.Errorf("%q does not pass as generated", made)
		}
	})
}

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
	// The hasher keeps its key though the caller's is gone.
	key := bytes.Clone(pepper)
	keeps := must.Get(clientsecret.NewHasher(key))
	clear(key)
	if !keeps.Matches(fast, generated) {
		t.Error("the key is not the hasher's own")
	}
}

// beside gives secrets with the hashes.
func beside(hashes ...clientsecret.Hash) []clientsecret.Secret {
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
	others := beside(hasher.Hash(clientsecret.New()), imported["bcrypt, b"].hash, "malformed", first)
	second := hasher.Hash("second", others...)
	if saltOf(second) != saltOf(first) || second == first {
		t.Errorf("got %s beside %s, want another with its salt", second, first)
	}
	if hasher.Hash("first", others...) != first {
		t.Error("the same secret beside itself has another hash")
	}
	// Neither a hash from elsewhere nor another client's gives its salt.
	for name, others := range map[string][]clientsecret.Secret{
		"nothing": nil, "generated": beside(hasher.Hash(clientsecret.New())),
		"imported": beside(imported["bcrypt, b"].hash, imported["Argon2id"].hash),
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

// One presented secret costs one computation, however many secrets the client has and of whatever kind; a hash from
// elsewhere costs its own besides.
func TestMatch(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	const first, second, third, foreign = "first secret", "second secret", "third secret", "correct horse battery staple"
	generated, another := clientsecret.New(), clientsecret.New()
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
	slow, fast := clientsecret.Work{Slow: 1}, clientsecret.Work{Fast: 1}
	for name, test := range map[string]struct {
		secrets []clientsecret.Secret
		secret  string
		want    int
		work    clientsecret.Work
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
		"many, wrong generated":       {many, clientsecret.New(), -1, fast},
		"chosen for a generated":      {beside(hasher.Hash(generated)), first, -1, slow},
		"generated for a chosen":      {beside(one, bcrypt), generated, -1, fast},
		"all expired":                 {ended, first, -1, slow},
		"all expired, generated":      {ended, generated, -1, fast},
		"all expired, imported":       {ended, foreign, -1, slow},
		"expired and not, expired":    {overlap, first, -1, slow},
		"expired and not, the other":  {overlap, second, 1, slow},
		"twice, one expired":          {twice, first, 1, slow},
		"the same twice":              {beside(one, one), first, 0, slow},
		"of another salt":             {beside(one, apart), third, 1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"imported":                    {beside(bcrypt), foreign, 0, clientsecret.Work{Slow: 1, Foreign: 1}},
		"imported, wrong":             {beside(bcrypt), first, -1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"imported beside chosen":      {beside(one, bcrypt), foreign, 1, clientsecret.Work{Slow: 1, Foreign: 1}},
		"chosen beside imported":      {beside(bcrypt, one), first, 1, clientsecret.Work{Slow: 1, Foreign: 1}},
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
	secrets := beside(hasher.Hash(clientsecret.New()), one, hasher.Hash("second", beside(one)...), hasher.Hash("apart"), "malformed")
	want := []bool{false, false, false, true, false}
	for _, name := range []string{"bcrypt, b", "OpenIddict", "PBKDF2", "Argon2id"} {
		secrets, want = append(secrets, beside(imported[name].hash)...), append(want, true)
	}
	for i := range secrets {
		if got := clientsecret.Outdated(secrets, i); got != want[i] {
			t.Errorf("%s: got %t, want %t", secrets[i].Hash, got, want[i])
		}
	}
	if !clientsecret.Outdated(beside(imported["bcrypt, b"].hash), 0) {
		t.Error("a hash from elsewhere is not outdated where there is no other")
	}
}

func TestMatchOfExpired(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	ended := beside(hasher.Hash("first"))
	ended[0].ExpiresAt = start
	if got := hasher.Match(ended, "first", time.Time{}); got != 0 {
		t.Errorf("at the zero time: got %d", got)
	}
}

// BenchmarkMatch compares wrong secrets with those of clients of all kinds; see TestMatch for what makes the times alike.
func BenchmarkMatch(b *testing.B) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	one, generated := hasher.Hash("first"), hasher.Hash(clientsecret.New())
	three := beside(one, hasher.Hash("second", beside(one)...), hasher.Hash("third", beside(one)...))
	expired := beside(one, generated)
	expired[0].ExpiresAt, expired[1].ExpiresAt = start, start
	clients := []struct {
		name    string
		secrets []clientsecret.Secret
	}{
		{"unknown", nil}, {"one", beside(one, generated)}, {"expired", expired},
		{"three chosen", three}, {"three generated", beside(generated, generated, generated)},
		{"OpenIddict", beside(imported["OpenIddict"].hash)}, {"Hydra", beside(imported["PBKDF2"].hash)},
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
