package token_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/token"
)

// The ones that must not hold: header and payload are right but for what is said, and the signature fits.
func TestHeader(t *testing.T) {
	second := signerFor(jwks.EdDSA).Public() // so that a missing kid means nothing
	verifier := newVerifier(signerFor(jwks.ES256).Public(), second)
	key := must.Get(signerFor(jwks.ES256).Public().JWK())
	tests := map[string]struct {
		header object
		want   error
	}{
		"as it should be":       {object{}, nil},
		"application/at+jwt":    {object{"typ": "application/at+jwt"}, nil},
		"AT+JWT":                {object{"typ": "AT+JWT"}, nil},
		"an unknown field":      {object{"x-note": 1}, nil},
		"typ JWT":               {object{"typ": "JWT"}, token.ErrType},
		"typ absent":            {object{"typ": nil}, token.ErrType},
		"typ of a logout token": {object{"typ": "logout+jwt"}, token.ErrType},
		"typ with a parameter":  {object{"typ": "at+jwt;x=y"}, token.ErrType},
		"typ a number":          {object{"typ": 1}, token.ErrMalformed},
		"typ null":              {object{"typ": raw("null")}, token.ErrMalformed},
		"typ in other case":     {object{"typ": nil, "TYP": "at+jwt"}, token.ErrType},
		"kid missing":           {object{"kid": nil}, token.ErrKey},
		"kid empty":             {object{"kid": ""}, token.ErrKey},
		"kid of no key":         {object{"kid": "x"}, token.ErrKey},
		"kid of another key":    {object{"kid": second.ID()}, token.ErrKey},
		"kid a number":          {object{"kid": 1}, token.ErrMalformed},
		"kid null":              {object{"kid": raw("null")}, token.ErrMalformed},
		"kid a list":            {object{"kid": []string{key.ID}}, token.ErrMalformed},
		"alg none":              {object{"alg": "none"}, token.ErrKey},
		"alg None":              {object{"alg": "None"}, token.ErrKey},
		"alg nOnE":              {object{"alg": "nOnE"}, token.ErrKey},
		"alg es256":             {object{"alg": "es256"}, token.ErrKey},
		"alg missing":           {object{"alg": nil}, token.ErrKey},
		"alg empty":             {object{"alg": ""}, token.ErrKey},
		"alg null":              {object{"alg": raw("null")}, token.ErrMalformed},
		"alg a list":            {object{"alg": []string{"ES256"}}, token.ErrMalformed},
		"alg ES384":             {object{"alg": "ES384"}, token.ErrKey},
		"alg HS256":             {object{"alg": "HS256"}, token.ErrKey},
		"jku":                   {object{"jku": "https://evil.example/keys"}, token.ErrMalformed},
		"jwk":                   {object{"jwk": key}, token.ErrMalformed},
		"x5u":                   {object{"x5u": "https://evil.example/cert"}, token.ErrMalformed},
		"crit":                  {object{"crit": []string{"exp"}}, token.ErrMalformed},
		"crit empty":            {object{"crit": []string{}}, token.ErrMalformed},
		"crit null":             {object{"crit": raw("null")}, token.ErrMalformed},
		"b64 with crit":         {object{"b64": false, "crit": []string{"b64"}}, token.ErrMalformed},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := verify(verifier, es256(goodHeader().with(test.header).String(), goodPayload().String()))
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	for _, header := range []string{"null", "[]", `"x"`, "1", "{", "", "{}{}"} {
		if _, err := verify(verifier, es256(header, goodPayload().String())); !errors.Is(err, token.ErrMalformed) {
			t.Errorf("the header %s: got %v, want %v", header, err, token.ErrMalformed)
		}
	}
}

// A token without kid finds the key of an issuer that has just one.
func TestOnlyKey(t *testing.T) {
	if _, err := verify(newVerifier(signerFor(jwks.ES256).Public()), es256(goodHeader().with(object{"kid": nil}).String(), goodPayload().String())); err != nil {
		t.Error(err)
	}
}

func TestClaims(t *testing.T) {
	now := issued.Add(time.Minute).Unix() // as newVerifier has it
	tests := map[string]struct {
		payload object
		want    error
	}{
		"as they should be": {object{}, nil},

		"iss of another":         {object{"iss": "https://evil.example"}, token.ErrIssuer},
		"iss with a slash":       {object{"iss": issuer + "/"}, token.ErrIssuer},
		"iss in other case":      {object{"iss": "https://AUTH.internal"}, token.ErrIssuer},
		"iss missing":            {object{"iss": nil}, token.ErrMalformed},
		"iss null":               {object{"iss": raw("null")}, token.ErrMalformed},
		"iss a list":             {object{"iss": []string{issuer}}, token.ErrMalformed},
		"sub missing":            {object{"sub": nil}, token.ErrMalformed},
		"sub empty":              {object{"sub": ""}, token.ErrMalformed},
		"sub a number":           {object{"sub": 1}, token.ErrMalformed},
		"client_id missing":      {object{"client_id": nil}, token.ErrMalformed},
		"client_id an object":    {object{"client_id": object{}}, token.ErrMalformed},
		"jti missing":            {object{"jti": nil}, token.ErrMalformed},
		"IsS beside iss":         {object{"IsS": "https://evil.example"}, nil},
		"ISS in place of iss":    {object{"iss": nil, "ISS": issuer}, token.ErrMalformed},
		"aud of another":         {object{"aud": "https://stock.internal"}, token.ErrAudience},
		"aud in a list":          {object{"aud": []string{"https://stock.internal", orders}}, nil},
		"aud of others":          {object{"aud": []string{"https://stock.internal", orders + "/"}}, token.ErrAudience},
		"aud split":              {object{"aud": "https://stock.internal " + orders}, token.ErrAudience},
		"aud missing":            {object{"aud": nil}, token.ErrMalformed},
		"aud null":               {object{"aud": raw("null")}, token.ErrMalformed},
		"aud empty":              {object{"aud": ""}, token.ErrMalformed},
		"aud no members":         {object{"aud": []string{}}, token.ErrMalformed},
		"aud an empty member":    {object{"aud": []string{orders, ""}}, token.ErrMalformed},
		"aud a null member":      {object{"aud": raw(`["` + orders + `",null]`)}, token.ErrMalformed},
		"aud a number":           {object{"aud": 1}, token.ErrMalformed},
		"aud a list of a number": {object{"aud": []int{1}}, token.ErrMalformed},
		"aud a list in a list":   {object{"aud": [][]string{{orders}}}, token.ErrMalformed},
		"aud an object":          {object{"aud": object{orders: true}}, token.ErrMalformed},
		"AUD beside aud":         {object{"aud": "https://stock.internal", "AUD": orders}, token.ErrAudience},

		"exp now":            {object{"exp": now}, token.ErrExpired},
		"exp a second later": {object{"exp": now + 1}, nil},
		"exp long ago":       {object{"exp": 0}, token.ErrExpired},
		"exp missing":        {object{"exp": nil}, token.ErrMalformed},
		"exp null":           {object{"exp": raw("null")}, token.ErrMalformed},
		"exp a text":         {object{"exp": fmt.Sprint(now + 60)}, token.ErrMalformed},
		"exp negative":       {object{"exp": -1}, token.ErrMalformed},
		"exp 1e400":          {object{"exp": raw("1e400")}, token.ErrMalformed},
		"exp -1e400":         {object{"exp": raw("-1e400")}, token.ErrMalformed},
		"exp 1e18":           {object{"exp": raw("1e18")}, token.ErrMalformed},
		"exp over int64":     {object{"exp": raw("99999999999999999999")}, token.ErrMalformed},
		"exp milliseconds":   {object{"exp": now * 1000}, token.ErrMalformed},
		"exp with exponent":  {object{"exp": raw("1.9e9")}, nil},
		"exp with fraction":  {object{"exp": raw(fmt.Sprintf("%d.9", now))}, token.ErrExpired},
		"exp true":           {object{"exp": true}, token.ErrMalformed},
		"exp a list":         {object{"exp": []int64{now + 60}}, token.ErrMalformed},
		"EXP beside exp":     {object{"exp": now - 1, "EXP": now + 60}, token.ErrExpired},

		"iat missing":             {object{"iat": nil}, token.ErrMalformed},
		"iat a text":              {object{"iat": "1"}, token.ErrMalformed},
		"iat within the leeway":   {object{"iat": now + 30}, nil},
		"iat beyond the leeway":   {object{"iat": now + 31}, token.ErrNotYet},
		"nbf within the leeway":   {object{"nbf": now + 30}, nil},
		"nbf beyond the leeway":   {object{"nbf": now + 31}, token.ErrNotYet},
		"nbf past, iat beyond":    {object{"nbf": now, "iat": now + 31}, token.ErrNotYet},
		"nbf a text":              {object{"nbf": "1"}, token.ErrMalformed},
		"nbf null":                {object{"nbf": raw("null")}, token.ErrMalformed},
		"scope absent":            {object{"scope": nil}, nil},
		"scope empty":             {object{"scope": ""}, nil},
		"scope null":              {object{"scope": raw("null")}, token.ErrMalformed},
		"scope a list":            {object{"scope": []string{"orders.read"}}, token.ErrMalformed},
		"scope of bad characters": {object{"scope": "a\tb"}, token.ErrMalformed},
		"scope of many":           {object{"scope": manyScopes(65)}, token.ErrMalformed},
	}
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := verify(verifier, es256(goodHeader().String(), goodPayload().with(test.payload).String()))
			if !errors.Is(err, test.want) || (err == nil) != (got != nil) {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
	for _, payload := range []string{"null", "[]", `"x"`, "1", "{", "", "{}{}"} {
		if _, err := verify(verifier, es256(goodHeader().String(), payload)); !errors.Is(err, token.ErrMalformed) {
			t.Errorf("the payload %s: got %v, want %v", payload, err, token.ErrMalformed)
		}
	}
}

// Of a claim that stands twice the last counts (RFC 7519 §4), for every reader of the claims alike.
func TestDuplicateClaims(t *testing.T) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	payload := strings.TrimSuffix(goodPayload().with(object{"aud": orders}).String(), "}") + `,"aud":"https://stock.internal"}`
	if _, err := verify(verifier, es256(goodHeader().String(), payload)); !errors.Is(err, token.ErrAudience) {
		t.Errorf("got %v, want %v", err, token.ErrAudience)
	}
}

func manyScopes(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	return strings.Join(names, " ")
}

// Changes to the bytes of a good token.
func TestBytes(t *testing.T) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	header, payload, signature := parts(good)
	sig := must.Get(base64.RawURLEncoding.DecodeString(signature))
	withSignature := func(s []byte) string {
		return header + "." + payload + "." + base64.RawURLEncoding.EncodeToString(s)
	}
	// The last of 64 bytes leaves four stray bits in the last character.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	stray := good[:len(good)-1] + string(alphabet[strings.IndexByte(alphabet, good[len(good)-1])+1])
	hash := sha256.Sum256([]byte(header + "." + payload))
	der := must.Get(ecdsa.SignASN1(rand.Reader, privates()[jwks.ES256].(*ecdsa.PrivateKey), hash[:]))
	tests := map[string]struct {
		token string
		want  error
	}{
		"good":                      {good, nil},
		"empty":                     {"", token.ErrMalformed},
		"one part":                  {header, token.ErrMalformed},
		"two parts":                 {header + "." + payload, token.ErrMalformed},
		"four parts":                {good + "." + signature, token.ErrMalformed},
		"five parts":                {header + ".." + payload + ".." + signature, token.ErrMalformed},
		"dots":                      {"..", token.ErrMalformed},
		"no signature":              {header + "." + payload + ".", token.ErrMalformed},
		"no payload":                {header + ".." + signature, token.ErrMalformed},
		"no header":                 {"." + payload + "." + signature, token.ErrMalformed},
		"padded":                    {good + "==", token.ErrMalformed},
		"line break":                {good + "\n", token.ErrMalformed},
		"line break within":         {header + ".\r\n" + payload + "." + signature, token.ErrMalformed},
		"space before":              {" " + good, token.ErrMalformed},
		"stray bits":                {stray, token.ErrMalformed},
		"base64, not base64url":     {header + "." + payload + ".++//" + signature[4:], token.ErrMalformed},
		"not ASCII":                 {header + "." + payload + "é." + signature, token.ErrMalformed},
		"oversize":                  {header + "." + strings.Repeat("A", token.MaxSize) + "." + signature, token.ErrMalformed},
		"all-zero signature":        {withSignature(make([]byte, 64)), token.ErrSignature},
		"zero r":                    {withSignature(append(make([]byte, 32), sig[32:]...)), token.ErrSignature},
		"zero s":                    {withSignature(append(append([]byte{}, sig[:32]...), make([]byte, 32)...)), token.ErrSignature},
		"truncated":                 {withSignature(sig[:63]), token.ErrSignature},
		"lengthened":                {withSignature(append(append([]byte{}, sig...), 0)), token.ErrSignature},
		"lengthened before":         {withSignature(append([]byte{0}, sig...)), token.ErrSignature},
		"DER":                       {withSignature(der), token.ErrSignature},
		"halves exchanged":          {withSignature(append(append([]byte{}, sig[32:]...), sig[:32]...)), token.ErrSignature},
		"other payload":             {header + "." + encode(goodPayload().with(object{"scope": "admin"}).String()) + "." + signature, token.ErrSignature},
		"other header":              {encode(goodHeader().with(object{"x": 1}).String()) + "." + payload + "." + signature, token.ErrSignature},
		"signature of another":      {withSignature(must.Get(base64.RawURLEncoding.DecodeString(last(es256("{}", "{}"))))), token.ErrSignature},
		"payload and key exchanged": {payload + "." + header + "." + signature, token.ErrType},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := verify(verifier, test.token); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func last(t string) string {
	_, _, signature := parts(t)
	return signature
}

// A good token that is almost as large as may be, and one that is larger.
func TestMaxSize(t *testing.T) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	for _, test := range []struct {
		pad  int
		want error
	}{{5600, nil}, {6200, token.ErrMalformed}} {
		s := es256(goodHeader().String(), goodPayload().with(object{"pad": strings.Repeat("x", test.pad)}).String())
		if (len(s) <= token.MaxSize) != (test.want == nil) {
			t.Fatalf("a token of %d bytes tests nothing", len(s))
		}
		if _, err := verify(verifier, s); !errors.Is(err, test.want) {
			t.Errorf("%d bytes: got %v, want %v", len(s), err, test.want)
		}
	}
}

// Keys that the token's sender has, made to look like the issuer's.
func TestForgedKeys(t *testing.T) {
	ec, rsaKey := privates()[jwks.ES256], privates()[jwks.RS256]
	ecPublic, rs256, ps256 := signerFor(jwks.ES256).Public(), signerFor(jwks.RS256).Public(), signerFor(jwks.PS256).Public()
	withKid := func(alg, kid string) string { return goodHeader().with(object{"alg": alg, "kid": kid}).String() }
	payload := goodPayload().String()
	foreign := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	tests := map[string]struct {
		key   jwks.Key
		token string
		want  error
	}{
		"foreign key, same kid":  {ecPublic, sign(jwks.ES256, foreign, withKid("ES256", ecPublic.ID()), payload), token.ErrSignature},
		"RS256 for a PS256 key":  {ps256, sign(jwks.RS256, rsaKey, withKid("RS256", ps256.ID()), payload), token.ErrKey},
		"PS256 for an RS256 key": {rs256, sign(jwks.PS256, rsaKey, withKid("PS256", rs256.ID()), payload), token.ErrKey},
		"PS256 that says RS256":  {rs256, sign(jwks.PS256, rsaKey, withKid("RS256", rs256.ID()), payload), token.ErrSignature},
		"RS384":                  {rs256, sign("RS384", rsaKey, withKid("RS384", rs256.ID()), payload), token.ErrKey},
		"ES256 for an RSA key":   {rs256, sign(jwks.ES256, ec, withKid("ES256", rs256.ID()), payload), token.ErrKey},
	}
	for name, secret := range publicBytes(ec.Public()) {
		tests["HS256 with the EC key's "+name] = struct {
			key   jwks.Key
			token string
			want  error
		}{ecPublic, hs256(secret, withKid("HS256", ecPublic.ID()), payload), token.ErrKey}
		tests["HS256 that says ES256 with the EC key's "+name] = struct {
			key   jwks.Key
			token string
			want  error
		}{ecPublic, hs256(secret, withKid("ES256", ecPublic.ID()), payload), token.ErrSignature}
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := verify(newVerifier(test.key), test.token); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// publicBytes has the spellings of a public key that an attacker could use as an HMAC secret.
func publicBytes(public crypto.PublicKey) map[string][]byte {
	der := must.Get(x509.MarshalPKIXPublicKey(public))
	set := must.Get(jwks.NewKey(jwks.ES256, public))
	return map[string][]byte{
		"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"JWK": must.Get(json.Marshal(must.Get(set.JWK()))), "nothing": {},
	}
}

func hs256(secret []byte, header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// What is offered beyond our four is met in other issuers' sets. Each holds with its own key alone, whatever library signed
// it, and with its whole signature alone.
func TestAlgorithms(t *testing.T) {
	rsaKey := must.Get(rsa.GenerateKey(rand.Reader, 2048))
	edKey := privates()[jwks.EdDSA]
	for algorithm, private := range map[jwks.Algorithm]crypto.Signer{
		"ES256": must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "ES384": must.Get(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"ES512": must.Get(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)),
		"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey, "PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey, "EdDSA": edKey,
	} {
		key := must.Get(jwks.NewKey(algorithm, private.Public()))
		header := goodHeader().with(object{"alg": algorithm, "kid": key.ID()}).String()
		good := sign(algorithm, private, header, goodPayload().String())
		if _, err := verify(newVerifier(key), good); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		end := strings.LastIndexByte(good, '.')
		signed, text := good[:end], good[end+1:]
		signature := must.Get(base64.RawURLEncoding.DecodeString(text))
		altered := bytes.Clone(signature)
		altered[len(altered)/2] ^= 1
		for name, wrong := range map[string][]byte{
			"altered": altered, "short": signature[1:], "cut": signature[:len(signature)-1], "long": append([]byte{0}, signature...),
			"longer": append(bytes.Clone(signature), 0), "zero": make([]byte, len(signature)), "one byte": {1},
		} {
			if _, err := verify(newVerifier(key), signed+"."+base64.RawURLEncoding.EncodeToString(wrong)); !errors.Is(err, token.ErrSignature) {
				t.Errorf("%s, %s: got %v, want %v", algorithm, name, err, token.ErrSignature)
			}
		}
	}
}

// TestSalt has a PSS signature hold with the salt of RFC 7518 §3.5 alone, which is as long as the hash.
func TestSalt(t *testing.T) {
	private, _ := privates()[jwks.PS256].(*rsa.PrivateKey)
	key := must.Get(jwks.NewKey(jwks.PS256, private.Public()))
	signed := encode(goodHeader().with(object{"alg": "PS256", "kid": key.ID()}).String()) + "." + encode(goodPayload().String())
	digest := sha256.Sum256([]byte(signed))
	for salt, right := range map[int]bool{20: false, 31: false, 32: true, 33: false, rsa.PSSSaltLengthAuto: false} {
		options := &rsa.PSSOptions{SaltLength: salt, Hash: crypto.SHA256}
		signature := must.Get(rsa.SignPSS(rand.Reader, private, crypto.SHA256, digest[:], options))
		if _, err := verify(newVerifier(key), signed+"."+base64.RawURLEncoding.EncodeToString(signature)); (err == nil) != right {
			t.Errorf("a salt of %d bytes: got %v", salt, err)
		}
	}
}

func failure(verifier *token.Verifier, raw string) error {
	_, err := verify(verifier, raw)
	return err
}

// TestHeaderMemory has each token judged by its own header, whichever came before it.
func TestHeaderMemory(t *testing.T) {
	first, second := signerFor(jwks.ES256), signerFor(jwks.EdDSA)
	verifier := newVerifier(first.Public(), second.Public())
	good := must.Get(first.Sign(claims()))
	header, rest, _ := strings.Cut(good, ".")
	private := privates()[jwks.ES256]
	type judged struct {
		raw  string
		want error
	}
	all := []judged{
		{good, nil}, {must.Get(second.Sign(claims())), nil},
		{sign(jwks.ES256, private, goodHeader().with(object{"crit": []string{"x"}}).String(), goodPayload().String()), token.ErrMalformed},
		{sign(jwks.ES256, private, goodHeader().with(object{"typ": "JWT"}).String(), goodPayload().String()), token.ErrType},
		{sign(jwks.ES256, private, goodHeader().with(object{"alg": "EdDSA"}).String(), goodPayload().String()), token.ErrKey},
		{encode(second.Public().ID()) + "." + rest, token.ErrMalformed},
		{header + "." + rest[:len(rest)-6] + "AAAAAA", token.ErrSignature},
	}
	var running sync.WaitGroup
	for start := range all {
		running.Go(func() {
			for i := range 10 * len(all) {
				if j := all[(start+i*i)%len(all)]; !errors.Is(failure(verifier, j.raw), j.want) {
					t.Errorf("%.60s…: want %v", j.raw, j.want)
				}
			}
		})
	}
	running.Wait()
}

// keySource answers as it is told.
type keySource struct{ err error }

func (k keySource) Find(context.Context, string) (jwks.Key, error) { return jwks.Key{}, k.err }
func (k keySource) Trusts(jwks.Key) bool                           { return false }

func TestNoKeys(t *testing.T) {
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	for name, test := range map[string]struct{ err, want error }{
		"unknown key": {fmt.Errorf("wrapped: %w", jwks.ErrUnknownKey), token.ErrKey},
		"trouble":     {errors.New("down"), token.ErrNoKeys},
		"gave up":     {context.Canceled, token.ErrNoKeys},
	} {
		verifier := newVerifier()
		verifier.Keys = keySource{test.err}
		if _, err := verify(verifier, good); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// Without an audience, as the issuer itself reads tokens, the rest still counts.
func TestAnyAudience(t *testing.T) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	verifier.Audience = nil
	other := claims()
	other.Audience = []string{"https://stock.internal"}
	if _, err := verify(verifier, must.Get(signerFor(jwks.ES256).Sign(other))); err != nil {
		t.Error(err)
	}
	other.Issuer = "https://evil.example"
	if _, err := verify(verifier, must.Get(signerFor(jwks.ES256).Sign(other))); !errors.Is(err, token.ErrIssuer) {
		t.Errorf("got %v, want %v", err, token.ErrIssuer)
	}
}
