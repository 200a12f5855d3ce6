package registry_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

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
	hasher, other := must(registry.NewHasher(pepper)), must(registry.NewHasher(bytes.Repeat([]byte("q"), 32)))
	generated, chosen := registry.NewSecret(), "service-secret-here"
	fast, slow := hasher.Hash(generated), hasher.Hash(chosen)
	if !strings.HasPrefix(string(fast), "$hmac-sha256$") || fast.Slow() || fast != hasher.Hash(generated) {
		t.Errorf("generated: got %s", fast)
	}
	if !strings.HasPrefix(string(slow), "$argon2id$v=19$m=19456,t=2,p=1$") || !slow.Slow() {
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
	keeps := must(registry.NewHasher(key))
	clear(key)
	if !keeps.Matches(fast, generated) {
		t.Error("the key is not the hasher's own")
	}
}

// Hashes of the reference implementation, with other costs than ours, are understood.
func TestForeignHash(t *testing.T) {
	sum := argon2.IDKey([]byte("secret"), make([]byte, 8), 1, 64, 2, 16)
	encoded := registry.Hash("$argon2id$v=19$m=64,t=1,p=2$AAAAAAAAAAA$" + base64.RawStdEncoding.EncodeToString(sum))
	hasher := must(registry.NewHasher(pepper))
	if !hasher.Matches(encoded, "secret") || hasher.Matches(encoded, "other") {
		t.Error("a hash with other costs is misread")
	}
}

// A record that asks for too much is refused before anything is computed.
func TestHostileHashes(t *testing.T) {
	hasher := must(registry.NewHasher(pepper))
	const costs = "m=8,t=1,p=1"
	if _, _, _, _, err := registry.ParseArgon(registry.ArgonWith(costs, 16, 32)); err != nil {
		t.Fatal(err)
	}
	well := string(registry.ArgonWith(costs, 16, 32))
	began := time.Now()
	for name, hash := range map[string]registry.Hash{
		"4 TiB":            registry.ArgonWith("m=4294967295,t=1,p=1", 16, 32),
		"over 256 MiB":     registry.ArgonWith("m=262145,t=1,p=1", 16, 32),
		"memory overflows": registry.ArgonWith("m=4294967296,t=1,p=1", 16, 32),
		"negative memory":  registry.ArgonWith("m=-1,t=1,p=1", 16, 32),
		"no passes":        registry.ArgonWith("m=8,t=0,p=1", 16, 32),
		"many passes":      registry.ArgonWith("m=8,t=11,p=1", 16, 32),
		"no threads":       registry.ArgonWith("m=8,t=1,p=0", 16, 32),
		"many threads":     registry.ArgonWith("m=8,t=1,p=17", 16, 32),
		"threads overflow": registry.ArgonWith("m=8,t=1,p=257", 16, 32),
		"no costs":         registry.ArgonWith("", 16, 32),
		"other order":      registry.ArgonWith("t=1,m=8,p=1", 16, 32),
		"no salt":          registry.ArgonWith(costs, 0, 32),
		"short salt":       registry.ArgonWith(costs, 7, 32),
		"long salt":        registry.ArgonWith(costs, 65, 32),
		"no sum":           registry.ArgonWith(costs, 16, 0),
		"short sum":        registry.ArgonWith(costs, 16, 15),
		"long sum":         registry.ArgonWith(costs, 16, 65),
		"salt not base64":  registry.Hash(strings.Replace(well, "$AAAA", "$A*AA", 1)),
		"one part more":    registry.Hash(well + "$"),
		"one part less":    registry.Hash(well[:strings.LastIndex(well, "$")]),
		"other version":    registry.Hash(strings.Replace(well, "v=19", "v=16", 1)),
		"no version":       registry.Hash(strings.Replace(well, "v=19", "", 1)),
		"argon2i":          registry.Hash(strings.Replace(well, "argon2id", "argon2i", 1)),
		"text before":      registry.Hash("x" + well),
		"prefix alone":     "$argon2id$",
	} {
		if _, _, _, _, err := registry.ParseArgon(hash); err == nil {
			t.Errorf("%s: %s is read", name, hash)
		}
		if hasher.Matches(hash, "secret") {
			t.Errorf("%s: %s matches", name, hash)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("refusing took %s", took)
	}
}

func FuzzStoredHash(f *testing.F) {
	f.Add(string(must(registry.NewHasher(pepper)).Hash("secret")))
	f.Add(string(registry.ArgonWith("m=8,t=1,p=1", 16, 32)))
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		memory, passes, threads, sizes, err := registry.ParseArgon(registry.Hash(s))
		if err != nil {
			return
		}
		if memory > 256<<10 || passes < 1 || passes > 10 || threads < 1 || threads > 16 ||
			sizes[0] < 8 || sizes[0] > 64 || sizes[1] < 16 || sizes[1] > 64 || !registry.Hash(s).Slow() {
			t.Errorf("%q: costs %d, %d, %d, sizes %v", s, memory, passes, threads, sizes)
		}
	})
}
