package clientsecret_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
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
	// The last character of the random part has four spare bits, which decoding ignores.
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

func TestExpired(t *testing.T) {
	for name, test := range map[string]struct {
		expires time.Time
		want    bool
	}{
		"never":         {time.Time{}, false},
		"in a second":   {start.Add(time.Second), false},
		"now":           {start, true},
		"a second past": {start.Add(-time.Second), true},
	} {
		if got := (&clientsecret.Secret{ExpiresAt: test.expires}).Expired(start); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestLastUse(t *testing.T) {
	secret := clientsecret.Secret{ID: "2", CreatedAt: start}
	for name, test := range map[string]struct {
		uses map[string]time.Time
		want time.Time
	}{
		"nothing stored":                {nil, time.Time{}},
		"of another secret":             {map[string]time.Time{"1": start.Add(time.Hour)}, time.Time{}},
		"of the secret":                 {map[string]time.Time{"1": start, "2": start.Add(time.Hour)}, start.Add(time.Hour)},
		"by a clock that lags":          {map[string]time.Time{"2": start.Add(-30 * time.Second)}, start.Add(-30 * time.Second)},
		"of an earlier one with its id": {map[string]time.Time{"2": start.Add(-time.Hour)}, time.Time{}},
		"of an earlier one, recently":   {map[string]time.Time{"2": start.Add(-time.Minute)}, time.Time{}},
	} {
		if got := secret.LastUse(test.uses); !got.Equal(test.want) {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}
