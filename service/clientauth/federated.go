package clientauth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

const (
	// maxVerifiedBytes is the maximum size of the verified assertions in memory together, in bytes.
	maxVerifiedBytes = 32 << 20
	// verifiedFactor is how much more than an assertion its decoded claims take, and verifiedOverhead what else is in
	// memory with them, in bytes.
	verifiedFactor   = 3
	verifiedOverhead = 1 << 10
	// maxName is the maximum size, in bytes, of the issuer and the subject of a token in [Authentication.Identity]. No
	// standard bounds them; a SPIFFE ID has at most maxSPIFFEID.
	maxName = 512
)

// federation authenticates clients by tokens of trusted issuers (RFC 7523 §3, with an issuer that is not the client).
// Such a token serves many requests, so its verification is remembered.
type federation struct {
	sources *issuerSources
	// verified is keyed by the SHA-256 of the assertion. Hashing keeps bearer tokens out of the heap.
	verified *otter.Cache[[sha256.Size]byte, *vouched]
}

func newFederation(config Config) *federation {
	return &federation{
		sources: &issuerSources{config: config.Federation, now: config.Now},
		verified: otter.Must(&otter.Options[[sha256.Size]byte, *vouched]{
			MaximumWeight: maxVerifiedBytes,
			Weigher:       func(_ [sha256.Size]byte, v *vouched) uint32 { return v.size },
		}),
	}
}

// vouched is an assertion whose signature is that of its issuer, and whose claims but the times are right.
type vouched struct {
	identity trust.Identity
	source   *issuerSource
	key      jwks.Key
	// table is the version of the table in which the issuer is trusted.
	table     uint64
	singleUse bool
	// certificate reports that the identity is that of an X509-SVID, which is verified for each request.
	certificate bool
	validity    trust.Validity
	// signed is the SHA-256 of what is signed. It identifies the assertion: other signatures of the same text can be made
	// of one.
	signed [sha256.Size]byte
	size   uint32
	// matched is the result of matching the identity with the table; nil before the first match.
	matched atomic.Pointer[workloadMatch]
}

// workloadMatch is what the table makes of an identity: the client of the workload that it is of, as nothing that is
// stored restricts it. The workload is nil if the identity is of none.
type workloadMatch struct {
	workload *trust.Workload
	client   *registry.Client
	// name is that of the identity, by [vouched.name].
	name string
}

// name returns the name of the client at its issuer, in valid UTF-8.
func (v *vouched) name() string {
	if v.identity.SPIFFEID != "" {
		return v.identity.SPIFFEID
	}
	name := strings.ToValidUTF8(v.identity.Issuer+" "+v.identity.Subject, "\uFFFD")
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") // without the part of a character that the cut leaves
	}
	return name
}

// match returns the workload that the identity is of. The table must be the one of the assertion.
func (v *vouched) match(table *trust.Table) *workloadMatch {
	if known := v.matched.Load(); known != nil {
		return known
	}
	found := &workloadMatch{client: &absentClient, name: v.name()}
	if w, client, ok := table.Match(v.identity); ok {
		found.workload, found.client = w, registry.WorkloadClient(w, client, nil)
	}
	v.matched.Store(found)
	return found
}

// recall returns an assertion that was verified before, and the table, if nothing that the verification rests on has
// changed since: the issuer is trusted as it was, and the key is still one of the issuer's. Otherwise it returns nil.
func (a *Authenticator) recall(ctx context.Context, e Evidence, sum [sha256.Size]byte) (*vouched, *trust.Table, error) {
	v, ok := a.federation.verified.GetIfPresent(sum)
	if !ok || e.AssertionType != v.assertionType() {
		return nil, nil, nil
	}
	table, err := a.trusted(ctx)
	if err != nil {
		return nil, nil, err
	}
	if v.table != table.Version() || !v.source.trusts(v.key) {
		a.federation.verified.Invalidate(sum)
		return nil, nil, nil
	}
	return v, table, nil
}

// federated reports whether an assertion is for the trusted issuers to prove, rather than for the client itself.
func federated(sent *trust.Token) bool {
	return sent.SVID() || sent.Identity.Issuer != sent.Identity.Subject
}

// authenticateFederated returns the client that a trusted issuer vouches for. The assertion costs one verification of a
// signature, be its issuer trusted or not.
func (a *Authenticator) authenticateFederated(ctx context.Context, e Evidence, sent *trust.Token, sum [sha256.Size]byte) (Authentication, error) {
	table, err := a.trusted(ctx)
	if err != nil {
		return Authentication{Method: methodOf(sent)}, err
	}
	v, err := a.vouch(ctx, table, sent)
	if err != nil {
		p := proof{credentials{id: e.ClaimedID(), method: methodOf(sent)}, e.Source, a.config.Now()}
		return Authentication{Method: p.method}, a.failed(ctx, p, err)
	}
	v.size = uint32(verifiedFactor*len(e.Assertion) + verifiedOverhead) //nolint:gosec // an assertion has at most 8 KiB
	if v.validity.Check(a.config.Now()) == nil {
		a.federation.verified.Set(sum, v)
	}
	return a.authenticateVouched(ctx, e, v, table)
}

// authenticateVouched returns the client that a verified assertion is of. A client is looked up only here, so that the
// answer to an assertion that no issuer has signed does not depend on any client.
func (a *Authenticator) authenticateVouched(ctx context.Context, e Evidence, v *vouched, table *trust.Table) (Authentication, error) {
	p := proof{credentials{id: cmp.Or(e.ClientID, v.identity.Name()), method: v.method()}, e.Source, a.config.Now()}
	result := Authentication{Method: p.method}
	if err := v.validity.Check(p.at); err != nil {
		return result, a.fail(ctx, p, refused(oauth.WrongAssertion, "the assertion of %s: %w", v.name(), err))
	}
	matched := v.match(table)
	result.Identity = matched.name
	client, err := a.vouchedClient(ctx, v, matched, e.ClientID)
	if err != nil {
		return result, a.failed(ctx, p, err)
	}
	p.id = client.ID.String()
	result.ID = p.id
	if refusal := a.checkUsable(p, client); refusal != nil {
		return result, a.fail(ctx, p, refusal)
	}
	if v.singleUse {
		if err := a.useVouchedOnce(ctx, p, v); err != nil {
			return result, err
		}
	}
	result.Client = client
	return result, nil
}

// trusted returns the table of trusted issuers.
func (a *Authenticator) trusted(ctx context.Context) (*trust.Table, error) {
	if a.config.Federation.Trust == nil {
		return trust.NewTable(0, nil, nil)
	}
	table, err := a.config.Federation.Trust.Trust(ctx)
	if err != nil {
		return nil, oauth.StoreUnavailable(ctx, oauth.StoreUnreachable, fmt.Errorf("reading the trusted issuers: %w", err))
	}
	return table, nil
}

// failed counts a failed authentication. An error that says nothing about the evidence is returned as it is.
func (a *Authenticator) failed(ctx context.Context, p proof, err error) error {
	if refusal, ok := errors.AsType[*oauth.Error](err); ok && refusal.Code == oauth.InvalidClient {
		return a.fail(ctx, p, refusal)
	}
	return err
}

// vouch verifies an assertion by the keys of its issuer.
func (a *Authenticator) vouch(ctx context.Context, table *trust.Table, sent *trust.Token) (*vouched, error) {
	id := sent.Identity.IssuerID()
	issuer, trusted := table.Issuer(id)
	if trusted {
		trusted = (issuer.TrustDomain != "") == sent.SVID() // only trust domains issue JWT-SVIDs
	}
	v := &vouched{table: table.Version(), identity: sent.Identity}
	chosen, err := a.issuerKey(ctx, table, sent, v)
	if err != nil {
		return nil, err
	}
	v.key = chosen.key
	cause := chosen.verify(sent.Message)
	if !trusted {
		return nil, refused(oauth.UntrustedIssuer, "iss is %.200q, which is neither the client nor a trusted issuer", id)
	}
	if cause == nil {
		verdict := issuer.CheckToken(sent, a.config.Issuer.String())
		v.validity, cause = verdict.Validity, verdict.Err()
	}
	if cause != nil {
		return nil, refused(oauth.WrongAssertion, "the assertion of %s: %w", issuer.ID(), cause)
	}
	v.singleUse, v.signed = issuer.SingleUse, sha256.Sum256([]byte(sent.Message.Signed()))
	return v, nil
}

// issuerKey returns the key of the issuer that the header of an assertion selects. An issuer that is not trusted has none.
func (a *Authenticator) issuerKey(ctx context.Context, table *trust.Table, sent *trust.Token, v *vouched) (choice, error) {
	header, id := sent.Message.Header, sent.Identity.IssuerID()
	source, ok := a.federation.sources.find(table, id)
	if !ok || source.domain != sent.SVID() {
		return choose(header, jwks.Key{}, jwks.ErrUnknownKey), nil
	}
	v.source = source
	key, err := source.find(ctx, header.KeyID)
	if err != nil && !errors.Is(err, jwks.ErrUnknownKey) {
		return choice{}, unreachableIssuer(id, err)
	}
	return choose(header, key, err), nil
}

func unreachableIssuer(id string, err error) *oauth.Error {
	return &oauth.Error{
		Code: oauth.TemporarilyUnavailable, Reason: oauth.KeysUnreachable, RetryAfter: time.Second,
		Text: "The keys of the assertion's issuer cannot be fetched.", Cause: fmt.Errorf("the keys of %s: %w", id, err),
	}
}

// vouchedClient returns the client that an identity is: the one that is named, if its rules select the identity, or the
// one that a workload makes.
func (a *Authenticator) vouchedClient(ctx context.Context, v *vouched, matched *workloadMatch, named string) (*registry.Client, error) {
	id := named
	if id == "" {
		id = matched.client.ID.String()
	}
	stored, known, err := a.find(ctx, id)
	if err == nil && !known && matched.workload != nil && named != "" && named == v.identity.SPIFFEID {
		// A client that has no other name sends its SPIFFE ID in client_id.
		named, id = "", matched.client.ID.String()
		stored, known, err = a.find(ctx, id)
	}
	switch {
	case err != nil:
		return nil, err
	case known && named != "" && v.registered(stored):
		return stored, nil
	case !known && named != "" && matched.workload == nil:
		return nil, refused(oauth.UnknownClient, "unknown client")
	case known && !stored.Workload:
		// A workload is never a client that is registered: a service account of its name could take it over.
		return nil, refused(oauth.NoMatchingRule, "no rule of client %q selects %s", id, v.name())
	case matched.workload == nil:
		return nil, refused(oauth.NoMatchingRule, "no workload selects %s", v.name())
	case id != matched.client.ID.String():
		return nil, refused(oauth.NoMatchingRule, "client_id is %.255q, but %s is %q", named, v.name(), matched.client.ID)
	case !known:
		return matched.client, nil
	}
	return registry.WorkloadClient(matched.workload, matched.client.ID, stored), nil
}

// useVouchedOnce returns an error unless this is the first use of the assertion at any replica.
func (a *Authenticator) useVouchedOnce(ctx context.Context, p proof, v *vouched) error {
	id := assertionID(v.identity.Issuer, string(v.signed[:]))
	switch first, err := a.config.Replays.Use(ctx, id, v.validity.Expires.Add(replayMargin)); {
	case err != nil:
		return oauth.StoreUnavailable(ctx, oauth.StoreUnreachable, fmt.Errorf("whether the assertion of client %q was used: %w", p.id, err))
	case !first:
		return a.fail(ctx, p, refused(oauth.AssertionReplayed, "client %q sent the assertion of %s before", p.id, v.identity.Issuer))
	}
	return nil
}
