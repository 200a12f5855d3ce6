package clientsecret_test

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/must"
)

// foreign is a secret and its hash by other software.
type foreign struct {
	secret string
	hash   clientsecret.Hash
}

const (
	horse = "correct horse battery staple"
	// umlauts is a secret of more bytes than letters.
	umlauts = "pässwörd ☃"
)

// imported are hashes that other software computed: bcrypt by crypt(3) of libxcrypt 4.4, PBKDF2 by hashlib of Python 3.11, in
// the layouts that OpenIddict's OpenIddictApplicationManager and Hydra's hasherx read, and Argon2id by OpenSSL through
// Python's cryptography 48.
var imported = map[string]foreign{
	"bcrypt, a":          {horse, "$2a$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"},
	"bcrypt, b":          {horse, "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"},
	"bcrypt, y":          {horse, "$2y$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"},
	"bcrypt, umlauts":    {umlauts, "$2b$05$CCCCCCCCCCCCCCCCCCCCC./W/TLMHl.yAn.BG2BGPS.olYZ3mhcN6"},
	"bcrypt, 72 bytes":   {strings.Repeat("x", 72), "$2b$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i"},
	"bcrypt, two bytes":  {"ab", "$2b$04$abcdefghijklmnopqrstuu0CkeIeZLJOlOL1QPPhfXulLNPdFqJBW"},
	"OpenIddict":         {horse, "$openiddict$AQAAAAEAACcQAAAAEAABAgMEBQYHCAkKCwwNDg/Z+V9lwt+dKF0miCMAylvinj7VAFVmY4NcTGLicFFQIg=="},
	"OpenIddict, SHA-1":  {horse, "$openiddict$AQAAAAAAAAPoAAAAEAABAgMEBQYHCAkKCwwNDg8A6b+Q5v/5gBndnBKiBiA27187WD3zrXpRRPbHcnNx7A=="},
	"Identity, SHA-512":  {umlauts, "$openiddict$AQAAAAIAAYagAAAAIAABAgMEBQYHCAkKCwwNDg8AAQIDBAUGBwgJCgsMDQ4PGRvE0Z/zjtFHf1X0I+V5PnSgMZtqpfni0MYYZjuUVmVOb5EPU+j81PB6GNubDpswL65RklDYbVK1p0OjjpRT8Q=="},
	"PBKDF2":             {horse, "$pbkdf2-sha256$i=25000,l=32$AAECAwQFBgcICQoLDA0ODw$q3p6hzSDqJqvjFfDTJ4Rg5BSX89AyJuR1xytmLoV8tY"},
	"PBKDF2, SHA-512":    {umlauts, "$pbkdf2-sha512$i=1000,l=64$AAECAwQFBgcICQoLDA0ODw$VPSDATN71l+g0eCw8ZvYI4AmOXyDQvjFpxy1o1seo3nPXNSV8WBk3QGBhAJ1FwKnmOjK0PTOwdxa4khkhGINCQ"},
	"PBKDF2, SHA-1":      {horse, "$pbkdf2-sha1$i=1000,l=20$AAAAAAAAAAA$M9VjZiclVOJ98/IB2l54DD18XlQ"},
	"Argon2id":           {horse, "$argon2id$v=19$m=8192,t=3,p=4$AAECAwQFBgcICQoLDA0ODw$ppSovUD2vVHaUlEAKd+XNAgf0+zrKpgb2Y86gfcZUOI"},
	"Argon2id, least":    {umlauts, "$argon2id$v=19$m=64,t=1,p=2$ZGVmZ2hpams$q0g1GcZTpcZ/lKOYmckwNA"},
	"Argon2id, our cost": {horse, "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$gYJZtjEAJqjg26xdLmknq8/bB7MiWPrE9hsYuA+SkIU"},
}

func TestImported(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	for name, test := range imported {
		text, _ := strings.CutPrefix(string(test.hash), "$openiddict$") // OpenIddict stores it without the prefix
		for _, text := range []string{text, string(test.hash)} {
			if got, err := clientsecret.ParseImported(text); got != test.hash || err != nil {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
		want := clientsecret.KindImported
		if name == "Argon2id, our cost" {
			want = clientsecret.KindChosen // it is indistinguishable from ours
		}
		if got := test.hash.Kind(); got != want {
			t.Errorf("%s: got kind %d, want %d", name, got, want)
		}
		for secret, want := range map[string]bool{test.secret: true, test.secret + "x": false, test.secret[1:]: false, "": false} {
			if got := hasher.Matches(test.hash, secret); got != want {
				t.Errorf("%s: %q matches: %t", name, secret, got)
			}
		}
		if got := hasher.Match(withHashes(test.hash), test.secret, start); got != 0 {
			t.Errorf("%s: got index %d, want 0", name, got)
		}
	}
}

// TestNotImported checks that other texts are not accepted as imported hashes, and that errors do not quote them.
func TestNotImported(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	for name, text := range map[string]string{
		"empty":              "",
		"a secret":           "service-secret-here",
		"a secret in base64": "c2VydmljZS1zZWNyZXQtaGVyZQ==",
		"generated":          string(hasher.Hash(clientsecret.New())),
		"a SHA-256":          strings.Repeat("0123456789abcdef", 4),
		"a dollar":           "$",
		"crypt's SHA-512":    "$6$rounds=5000$saltsalt$" + strings.Repeat("a", 86),
		"scrypt":             "$scrypt$ln=16,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"passlib's PBKDF2":   "$pbkdf2-sha256$29000$AAECAwQFBgcICQoLDA0ODw$q3p6hzSDqJqvjFfDTJ4Rg5BSX89AyJuR1xytmLoV8tY",
		"blank before":       " " + string(imported["bcrypt, b"].hash),
		"line end behind":    string(imported["bcrypt, b"].hash) + "\n",
		"very long":          "$pbkdf2-sha256$i=1,l=32$" + strings.Repeat("A", 100_000) + "$AAAA",
	} {
		got, err := clientsecret.ParseImported(text)
		if got != "" || err == nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		} else if len(text) > 3 && strings.Contains(err.Error(), text) {
			t.Errorf("%s: the error quotes it: %v", name, err)
		}
	}
}

// TestBcryptPitfalls checks secrets that bcrypt itself accepts in place of the right one.
func TestBcryptPitfalls(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	long, short := imported["bcrypt, 72 bytes"].hash, imported["bcrypt, two bytes"].hash
	for name, test := range map[string]struct {
		hash   clientsecret.Hash
		secret string
	}{
		"73rd byte": {long, strings.Repeat("x", 73)}, "512 bytes": {long, strings.Repeat("x", 512)},
		"NUL and again": {short, "ab\x00ab"}, "NUL and again, twice": {short, "ab\x00ab\x00ab"},
	} {
		if bcrypt.CompareHashAndPassword([]byte(test.hash), []byte(test.secret)) != nil {
			t.Errorf("%s: bcrypt rejects it, so the test proves nothing", name)
		}
		if hasher.Matches(test.hash, test.secret) {
			t.Errorf("%s: got a match", name)
		}
	}
}

func TestHostileBcrypt(t *testing.T) {
	const well = "$2b$04$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"
	for name, hash := range map[string]string{
		"cost 15":           strings.Replace(well, "$04$", "$15$", 1),
		"cost 31":           strings.Replace(well, "$04$", "$31$", 1),
		"cost 3":            strings.Replace(well, "$04$", "$03$", 1),
		"cost of one digit": strings.Replace(well, "$04$", "$4$", 1) + "a",
		"cost with a blank": strings.Replace(well, "$04$", "$1 $", 1),
		"cost with a sign":  strings.Replace(well, "$04$", "$+4$", 1),
		"cost 0x":           strings.Replace(well, "$04$", "$0x$", 1),
		"version x":         strings.Replace(well, "$2b$", "$2x$", 1),
		"version 2":         strings.Replace(well, "$2b$", "$2$", 1) + "a",
		"version 3":         strings.Replace(well, "$2b$", "$3b$", 1),
		"cut off":           well[:59],
		"longer":            well + "a",
		"salt not base64":   strings.Replace(well, "$abc", "$a+c", 1),
		"line end in salt":  strings.Replace(well, "$abc", "$a\nc", 1),
		"sum not base64":    well[:59] + "=",
		"line end in sum":   well[:59] + "\n",
		"spare bits used":   well[:59] + "H",
		"no dollar":         strings.Replace(well, "$04$", "$04a", 1),
		"prefix alone":      "$2b$",
		"of dollars":        "$2" + strings.Repeat("$", 58),
	} {
		expectHostile(t, name, hash)
	}
}

func TestHostilePBKDF2(t *testing.T) {
	const well = "$pbkdf2-sha256$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw$q3p6hzSDqJqvjFfDTJ4Rg5BSX89AyJuR1xytmLoV8tY"
	replaced := func(old, with string) string { return strings.Replace(well, old, with, 1) }
	if _, err := clientsecret.ParseImported(well); err != nil {
		t.Fatal(err)
	}
	for name, hash := range map[string]string{
		"no iterations":         replaced("i=1000", "i=0"),
		"over two million":      replaced("i=1000", "i=2000001"),
		"over, by blocks":       strings.Replace(replaced("i=1000", "i=1000001"), "sha256", "sha1", 1),
		"iterations overflow":   replaced("i=1000", "i=4294967297"),
		"negative iterations":   replaced("i=1000", "i=-1"),
		"leading zero":          replaced("i=1000", "i=01000"),
		"other order":           replaced("i=1000,l=32", "l=32,i=1000"),
		"no length":             replaced(",l=32", ""),
		"other length":          replaced("l=32", "l=31"),
		"text behind the costs": replaced("l=32", "l=32,x=1"),
		"MD5":                   replaced("sha256", "md5"),
		"SHA-224":               replaced("sha256", "sha224"),
		"no function":           replaced("-sha256", "-"),
		"short salt":            replaced("AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBg"),
		"long salt":             replaced("AAECAwQFBgcICQoLDA0ODw", strings.Repeat("A", 88)),
		"short sum":             replaced("l=32$", "l=15$")[:len(well)-23],
		"padded":                well + "=",
		"salt not base64":       replaced("$AAEC", "$A*EC"),
		"line end in sum":       replaced("$q3p6", "$q3\np6"),
		"one part more":         well + "$",
		"one part less":         well[:strings.LastIndex(well, "$")],
		"prefix alone":          "$pbkdf2-",
	} {
		expectHostile(t, name, hash)
	}
}

// openIddict returns a hash in the layout of OpenIddict.
func openIddict(marker byte, function, iterations, size uint32, rest int) string {
	raw := []byte{marker}
	for _, n := range []uint32{function, iterations, size} {
		raw = binary.BigEndian.AppendUint32(raw, n)
	}
	return base64.StdEncoding.EncodeToString(append(raw, make([]byte, rest)...))
}

func TestHostileOpenIddict(t *testing.T) {
	well := openIddict(1, 1, 1000, 16, 48)
	if _, err := clientsecret.ParseImported(well); err != nil {
		t.Fatal(err)
	}
	for name, hash := range map[string]string{
		"Identity's version 2":    openIddict(0, 1, 1000, 16, 48),
		"another marker":          openIddict(2, 1, 1000, 16, 48),
		"another function":        openIddict(1, 3, 1000, 16, 48),
		"function overflows":      openIddict(1, 1<<31, 1000, 16, 48),
		"no iterations":           openIddict(1, 1, 0, 16, 48),
		"over two million":        openIddict(1, 1, 2_000_001, 16, 48),
		"over, by blocks":         openIddict(1, 0, 1_000_001, 16, 48),
		"most iterations":         openIddict(1, 1, 1<<32-1, 16, 48),
		"no salt":                 openIddict(1, 1, 1000, 0, 48),
		"short salt":              openIddict(1, 1, 1000, 7, 48),
		"long salt":               openIddict(1, 1, 1000, 65, 128),
		"salt longer than all":    openIddict(1, 1, 1000, 49, 48),
		"salt overflows":          openIddict(1, 1, 1000, 1<<32-1, 48),
		"no sum":                  openIddict(1, 1, 1000, 48, 48),
		"short sum":               openIddict(1, 1, 1000, 33, 48),
		"long sum":                openIddict(1, 1, 1000, 16, 81),
		"header alone":            openIddict(1, 1, 1000, 16, 0),
		"cut off in the header":   base64.StdEncoding.EncodeToString([]byte{1, 0, 0, 0, 1}),
		"without padding":         strings.TrimRight(openIddict(1, 1, 1000, 16, 49), "="),
		"base64 of URLs":          strings.Replace(string(imported["OpenIddict"].hash), "/", "_", 1),
		"line end":                well[:20] + "\n" + well[20:],
		"the prefix twice":        "$openiddict$$openiddict$" + well,
		"the prefix and no more":  "$openiddict$",
		"something else's prefix": "$openiddict2$" + well,
	} {
		expectHostile(t, name, hash)
	}
}

// expectHostile checks that the hash is rejected before anything is computed.
func expectHostile(t *testing.T, name, hash string) {
	t.Helper()
	began := time.Now()
	if got, err := clientsecret.ParseImported(hash); err == nil {
		t.Errorf("%s: %q is parsed as %q", name, hash, got)
	}
	hasher := must.Get(clientsecret.NewHasher(pepper))
	for _, stored := range []clientsecret.Hash{clientsecret.Hash(hash), clientsecret.Hash("$openiddict$" + hash)} {
		if stored.Kind() != clientsecret.KindUnknown || hasher.Matches(stored, horse) {
			t.Errorf("%s: %q is accepted as a hash", name, stored)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%s: rejecting it took %s", name, took)
	}
}

// TestHostileArgon checks that a hash with excessive costs is rejected before anything is computed.
func TestHostileArgon(t *testing.T) {
	hasher := must.Get(clientsecret.NewHasher(pepper))
	const costs = "m=8,t=1,p=1"
	if _, _, _, _, err := clientsecret.ParseArgon(clientsecret.ArgonWith(costs, 16, 32)); err != nil {
		t.Fatal(err)
	}
	well := string(clientsecret.ArgonWith(costs, 16, 32))
	began := time.Now()
	for name, hash := range map[string]clientsecret.Hash{
		"4 TiB":            clientsecret.ArgonWith("m=4294967295,t=1,p=1", 16, 32),
		"over 256 MiB":     clientsecret.ArgonWith("m=262145,t=1,p=1", 16, 32),
		"memory overflows": clientsecret.ArgonWith("m=4294967296,t=1,p=1", 16, 32),
		"negative memory":  clientsecret.ArgonWith("m=-1,t=1,p=1", 16, 32),
		"no passes":        clientsecret.ArgonWith("m=8,t=0,p=1", 16, 32),
		"many passes":      clientsecret.ArgonWith("m=8,t=11,p=1", 16, 32),
		"no threads":       clientsecret.ArgonWith("m=8,t=1,p=0", 16, 32),
		"many threads":     clientsecret.ArgonWith("m=8,t=1,p=17", 16, 32),
		"threads overflow": clientsecret.ArgonWith("m=8,t=1,p=257", 16, 32),
		"no costs":         clientsecret.ArgonWith("", 16, 32),
		"other order":      clientsecret.ArgonWith("t=1,m=8,p=1", 16, 32),
		"no salt":          clientsecret.ArgonWith(costs, 0, 32),
		"short salt":       clientsecret.ArgonWith(costs, 7, 32),
		"long salt":        clientsecret.ArgonWith(costs, 65, 32),
		"no sum":           clientsecret.ArgonWith(costs, 16, 0),
		"short sum":        clientsecret.ArgonWith(costs, 16, 15),
		"long sum":         clientsecret.ArgonWith(costs, 16, 65),
		"salt not base64":  clientsecret.Hash(strings.Replace(well, "$AAAA", "$A*AA", 1)),
		"one part more":    clientsecret.Hash(well + "$"),
		"one part less":    clientsecret.Hash(well[:strings.LastIndex(well, "$")]),
		"other version":    clientsecret.Hash(strings.Replace(well, "v=19", "v=16", 1)),
		"no version":       clientsecret.Hash(strings.Replace(well, "v=19", "", 1)),
		"argon2i":          clientsecret.Hash(strings.Replace(well, "argon2id", "argon2i", 1)),
		"text before":      clientsecret.Hash("x" + well),
		"prefix alone":     "$argon2id$",
		"leading zero":     clientsecret.ArgonWith("m=08,t=1,p=1", 16, 32),
		"sign":             clientsecret.ArgonWith("m=+8,t=1,p=1", 16, 32),
		"text after costs": clientsecret.ArgonWith("m=8,t=1,p=1,keyid=x", 16, 32),
		"line end in salt": clientsecret.Hash(strings.Replace(well, "$AAAA", "$AA\nAA", 1)),
		"spare bits used":  clientsecret.Hash(well[:len(well)-1] + "B"),
	} {
		if _, _, _, _, err := clientsecret.ParseArgon(hash); err == nil {
			t.Errorf("%s: %s is parsed", name, hash)
		}
		if hasher.Matches(hash, "secret") {
			t.Errorf("%s: %s matches", name, hash)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("rejecting it took %s", took)
	}
}

func FuzzParseArgon(f *testing.F) {
	f.Add(string(must.Get(clientsecret.NewHasher(pepper)).Hash("secret")))
	f.Add(string(clientsecret.ArgonWith("m=8,t=1,p=1", 16, 32)))
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		memory, passes, threads, sizes, err := clientsecret.ParseArgon(clientsecret.Hash(s))
		if err != nil {
			return
		}
		if memory > 64<<10 || memory*passes > 3*64<<10 || passes < 1 || passes > 10 || threads < 1 || threads > 16 ||
			sizes[0] < 8 || sizes[0] > 64 || sizes[1] < 16 || sizes[1] > 64 || clientsecret.Hash(s).Kind() == clientsecret.KindUnknown {
			t.Errorf("%q: costs %d, %d, %d, sizes %v", s, memory, passes, threads, sizes)
		}
	})
}

// expectCanonical checks that a parsed hash parses to itself.
func expectCanonical(t *testing.T, hash clientsecret.Hash) {
	t.Helper()
	if parsed, err := clientsecret.ParseImported(string(hash)); parsed != hash || err != nil {
		t.Errorf("%q: got %q, %v the second time", hash, parsed, err)
	}
	if kind := hash.Kind(); kind != clientsecret.KindImported && kind != clientsecret.KindChosen {
		t.Errorf("%q is of kind %d", hash, kind)
	}
	if cost := clientsecret.PBKDF2Cost(hash); cost > 2_000_000 {
		t.Errorf("%q costs %d iterations", hash, cost)
	}
}

func FuzzParseImported(f *testing.F) {
	for _, seed := range imported {
		f.Add(string(seed.hash))
	}
	f.Add(string(must.Get(clientsecret.NewHasher(pepper)).Hash(clientsecret.New())))
	f.Fuzz(func(t *testing.T, s string) {
		if hash, err := clientsecret.ParseImported(s); err == nil {
			expectCanonical(t, hash)
		} else if hash != "" {
			t.Errorf("%q was rejected with the hash %q", s, hash)
		}
	})
}

// FuzzParseBcrypt parses bcrypt hashes. The bcrypt package must accept every hash that parses.
func FuzzParseBcrypt(f *testing.F) {
	for _, name := range []string{"bcrypt, a", "bcrypt, b", "bcrypt, y", "bcrypt, umlauts"} {
		f.Add(string(imported[name].hash)[2:])
	}
	f.Fuzz(func(t *testing.T, rest string) {
		hash, err := clientsecret.ParseImported("$2" + rest)
		if err != nil {
			return
		}
		expectCanonical(t, hash)
		if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost < 4 || cost > 13 {
			t.Errorf("%q: bcrypt parses the cost as %d, %v", hash, cost, err)
		}
	})
}

func FuzzParsePBKDF2(f *testing.F) {
	for _, name := range []string{"PBKDF2", "PBKDF2, SHA-512", "PBKDF2, SHA-1"} {
		f.Add(strings.TrimPrefix(string(imported[name].hash), "$pbkdf2-"))
	}
	f.Add("sha256$i=4294967295,l=32$$")
	f.Fuzz(func(t *testing.T, rest string) {
		hash, err := clientsecret.ParseImported("$pbkdf2-" + rest)
		if err != nil {
			return
		}
		expectCanonical(t, hash)
		if clientsecret.PBKDF2Cost(hash) == 0 {
			t.Errorf("%q costs nothing", hash)
		}
	})
}

func FuzzParseOpenIddict(f *testing.F) {
	for _, name := range []string{"OpenIddict", "OpenIddict, SHA-1", "Identity, SHA-512"} {
		raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(imported[name].hash), "$openiddict$"))
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		hash, err := clientsecret.ParseImported(base64.StdEncoding.EncodeToString(raw))
		if err != nil {
			return
		}
		expectCanonical(t, hash)
		if clientsecret.PBKDF2Cost(hash) == 0 || raw[0] != 1 {
			t.Errorf("%x is parsed as %q", raw, hash)
		}
	})
}
