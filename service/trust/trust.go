// Package trust says which identities from elsewhere a server accepts: of which issuers (RFC 7523 §3) and SPIFFE trust
// domains, and which of their identities are which client.
//
// There is one language for the latter, that of [Pattern]: equality and whole segments.
//
// It also says what is wrong with a token or an X509-SVID by which an identity is proven. It asks neither a store nor
// an issuer for anything: its callers have the keys.
package trust

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Identity is what an issuer or a trust domain says of a workload.
type Identity struct {
	// Issuer is the "iss" of the workload's token, and Subject its "sub".
	Issuer, Subject string
	// Claim returns a claim of the token as text: a string as it is, a number or a boolean as its JSON; ok is false for any
	// other claim and if there is none.
	Claim func(name string) (text string, ok bool)
	// SPIFFEID is the workload's SPIFFE ID; the other fields are empty then.
	SPIFFEID string
}

// Name returns what the workload is called by its issuer.
func (i *Identity) Name() string { return cmp.Or(i.SPIFFEID, i.Subject) }

// Rule selects identities: those of one issuer, by the subject or claims of their tokens, or those of one trust domain, by
// their SPIFFE IDs. The zero Rule selects none. Its JSON is that of messages and records.
type Rule struct {
	// Issuer is the "iss", compared byte for byte.
	Issuer string `json:"issuer,omitempty"`
	// Subject matches the "sub"; the zero Pattern stands for any.
	Subject Pattern `json:"subject,omitzero"`
	// Claims match the claims of their names.
	Claims map[string]Pattern `json:"claims,omitempty"`
	// SPIFFEID matches the SPIFFE ID. The trust domain in it is no capture.
	SPIFFEID Pattern `json:"spiffe_id,omitzero"`
}

// Match reports whether the rule selects the identity, and returns what its patterns captured. why says which part of the
// rule does not match, for an operator; it quotes the rule, not the identity.
func (r *Rule) Match(id Identity) (captures Captures, why string) {
	captures = make(Captures)
	switch {
	case r.Issuer != id.Issuer:
		return nil, "the issuer is another"
	case r.SPIFFEID.set() || id.SPIFFEID != "":
		if !r.SPIFFEID.Match(id.SPIFFEID, captures) {
			return nil, fmt.Sprintf("the SPIFFE ID does not match %q", r.SPIFFEID)
		}
		return captures, ""
	case r.Subject.set() && !r.Subject.Match(id.Subject, captures):
		return nil, fmt.Sprintf("the subject does not match %q", r.Subject)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
		text, ok := id.Claim(name)
		switch {
		case !ok:
			return nil, fmt.Sprintf("there is no claim %s that is a string, a number or a boolean", name)
		case !r.Claims[name].Match(text, captures):
			return nil, fmt.Sprintf("the claim %s does not match %q", name, r.Claims[name])
		}
	}
	return captures, ""
}

// Overlaps reports whether an identity may be selected by both rules.
func (r *Rule) Overlaps(other *Rule) bool {
	switch {
	case r.Issuer != other.Issuer:
		return false
	case r.SPIFFEID.set() || other.SPIFFEID.set():
		return r.SPIFFEID.Overlaps(other.SPIFFEID)
	case r.Subject.set() && other.Subject.set() && !r.Subject.Overlaps(other.Subject):
		return false
	}
	for name, pattern := range r.Claims {
		if counterpart, ok := other.Claims[name]; ok && !pattern.Overlaps(counterpart) {
			return false
		}
	}
	return true
}

// names returns the names of the captures.
func (r *Rule) names() []string {
	names := append(r.Subject.Names(), r.SPIFFEID.Names()...)
	for _, pattern := range r.Claims {
		names = append(names, pattern.Names()...)
	}
	return names
}

// bind returns the rule with captures replaced by texts.
func (r *Rule) bind(captures Captures) Rule {
	bound := Rule{Issuer: r.Issuer, Subject: r.Subject.Bind(captures), SPIFFEID: r.SPIFFEID.Bind(captures)}
	if r.Claims != nil {
		bound.Claims = make(map[string]Pattern, len(r.Claims))
	}
	for name, pattern := range r.Claims {
		bound.Claims[name] = pattern.Bind(captures)
	}
	return bound
}

// FieldError reports which field of an issuer, a rule or a workload is not valid, by its name in messages and manifests.
type FieldError struct {
	Field, Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

const (
	// maxClaims is the maximum number of claims in a rule, and maxClaim the maximum size of the name of one, in bytes.
	maxClaims = 16
	maxClaim  = 128
)

// Check returns what is wrong with the rule as a [FieldError]. A rule has an issuer and a subject or claims, or a
// SPIFFE ID.
func (r *Rule) Check() error {
	switch spiffe := r.SPIFFEID.set(); {
	case spiffe && (r.Issuer != "" || r.Subject.set() || len(r.Claims) > 0):
		return &FieldError{"spiffe_id", "cannot be set beside issuer, subject and claims"}
	case spiffe:
		return fieldError("spiffe_id", checkSPIFFEID(r.SPIFFEID))
	case r.Issuer == "":
		return &FieldError{"issuer", "is missing; a rule has an issuer or a spiffe_id"}
	case !r.Subject.set() && len(r.Claims) == 0:
		return &FieldError{"subject", "is missing; a rule has a subject or claims"}
	case len(r.Claims) > maxClaims:
		return &FieldError{"claims", fmt.Sprintf("has more than %d claims", maxClaims)}
	}
	for name, pattern := range r.Claims {
		if name == "" || len(name) > maxClaim || !pattern.set() {
			return &FieldError{"claims", fmt.Sprintf("the claim %.140q has no name of 1 to %d bytes or no pattern", name, maxClaim)}
		}
	}
	return nil
}

// checkSPIFFEID returns what is wrong with a pattern of SPIFFE IDs. Its trust domain is no capture: the identities of
// another domain are those of another authority.
func checkSPIFFEID(p Pattern) error {
	domain, path, _ := strings.Cut(strings.TrimPrefix(p.text, "spiffe://"), "/")
	if _, err := spiffeid.TrustDomainFromString(domain); err != nil || !strings.HasPrefix(p.text, "spiffe://") || path == "" {
		return errors.New("is not a SPIFFE ID such as spiffe://prod.example.com/shop/{name}, with its trust domain in full")
	}
	return nil
}

func fieldError(field string, err error) error {
	if err == nil {
		return nil
	}
	return &FieldError{field, err.Error()}
}
