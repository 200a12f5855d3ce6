package token_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/grantorhq/grantor/service/token"
)

func TestReason(t *testing.T) {
	for err, want := range map[error]string{
		token.ErrMalformed: "malformed",
		token.ErrType:      "no_access_token",
		token.ErrKey:       "unknown_key",
		token.ErrSignature: "wrong_signature",
		token.ErrIssuer:    "other_issuer",
		token.ErrAudience:  "other_audience",
		token.ErrExpired:   "expired",
		token.ErrNotYet:    "not_yet_valid",
		token.ErrRevoked:   "revoked",
		token.ErrNoKeys:    "no_keys",

		errors.New("anything else"): "other",
	} {
		if got := token.Reason(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}
