package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
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

// In each case, header and payload are valid except for the named change, and the signature fits.
func TestHeader(t *testing.T) {
	second := signerFor(jwks.EdDSA).Public() // so that a missing kid is ambiguous
	verifier := newVerifier(signerFor(jwks.ES256).Public(), second)
	key := must.Get(signerFor(jwks.ES256).Public().JWK())
	tests := map[string]struct {
		header object
		want   error
	}{
		"well-formed":           {object{}, nil},
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

// A token without kid matches the key of an issuer that has exactly one.
func TestOnlyKey(t *testing.T) {
	if _, err := verify(newVerifier(signerFor(jwks.ES256).Public()), es256(goodHeader().with(object{"kid": nil}).String(), goodPayload().String())); err != nil {
		t.Error(err)
	}
}

func TestClaims(t *testing.T) {
	now := issued.Add(time.Minute).Unix() // the time of newVerifier
	tests := map[string]struct {
		payload object
		want    error
	}{
		"well-formed": {object{}, nil},

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
		"scope of many":           {object{"scope": manyScopes(65)}, nil},
		"scope of a long URL":     {object{"scope": "https://orders.internal/" + strings.Repeat("x", 110)}, nil},
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

// Of a duplicate claim the last one counts (RFC 7519 §4), for every reader of the claims alike.
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

// Changes to the bytes of a valid token.
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
	der := must.Get(ecdsa.SignASN1(rand.Reader, privateKeys()[jwks.ES256].(*ecdsa.PrivateKey), hash[:]))
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

// A valid token just below the maximum size, and one above it.
func TestMaxSize(t *testing.T) {
	verifier := newVerifier(signerFor(jwks.ES256).Public())
	for _, test := range []struct {
		pad  int
		want error
	}{{5600, nil}, {6200, token.ErrMalformed}} {
		s := es256(goodHeader().String(), goodPayload().with(object{"pad": strings.Repeat("x", test.pad)}).String())
		if (len(s) <= token.MaxSize) != (test.want == nil) {
			t.Fatalf("a token of %d bytes is on the wrong side of the limit", len(s))
		}
		if _, err := verify(verifier, s); !errors.Is(err, test.want) {
			t.Errorf("%d bytes: got %v, want %v", len(s), err, test.want)
		}
	}
}

func failure(verifier *token.Verifier, raw string) error {
	_, err := verify(verifier, raw)
	return err
}

// TestHeaderCache checks that each token is judged by its own header, whichever token precedes it.
func TestHeaderCache(t *testing.T) {
	first, second := signerFor(jwks.ES256), signerFor(jwks.EdDSA)
	verifier := newVerifier(first.Public(), second.Public())
	good := must.Get(first.Sign(claims()))
	header, rest, _ := strings.Cut(good, ".")
	private := privateKeys()[jwks.ES256]
	type signedToken struct {
		raw  string
		want error
	}
	all := []signedToken{
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

// failingKeys is a key source that fails with err.
type failingKeys struct{ err error }

func (k failingKeys) Find(context.Context, string) (jwks.Key, error) { return jwks.Key{}, k.err }

func (k failingKeys) Trusts(jwks.Key) bool { return false }

func TestNoKeys(t *testing.T) {
	good := must.Get(signerFor(jwks.ES256).Sign(claims()))
	for name, test := range map[string]struct{ err, want error }{
		"unknown key": {fmt.Errorf("wrapped: %w", jwks.ErrUnknownKey), token.ErrKey},
		"trouble":     {errors.New("down"), token.ErrNoKeys},
		"gave up":     {context.Canceled, token.ErrNoKeys},
	} {
		verifier := newVerifier()
		verifier.Keys = failingKeys{test.err}
		if _, err := verify(verifier, good); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

// Without an audience, as when the issuer reads its own tokens, everything else is still checked.
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
