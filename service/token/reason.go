package token

import "errors"

// reasons maps each sentinel to the word that it is counted and audited by.
var reasons = []struct {
	err  error
	word string
}{
	{ErrExpired, "expired"},
	{ErrRevoked, "revoked"},
	{ErrAudience, "other_audience"},
	{ErrIssuer, "other_issuer"},
	{ErrKey, "unknown_key"},
	{ErrSignature, "wrong_signature"},
	{ErrNotYet, "not_yet_valid"},
	{ErrType, "no_access_token"},
	{ErrMalformed, "malformed"},
	{ErrProof, "wrong_proof"},
	{ErrNoKeys, "no_keys"},
}

// Reason returns why a token was refused as one word of a short fixed list, for metrics and audit events. It returns
// "other" for an error that wraps none of the errors of this package.
func Reason(err error) string {
	for _, reason := range reasons {
		if errors.Is(err, reason.err) {
			return reason.word
		}
	}
	return "other"
}
