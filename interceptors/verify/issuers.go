package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/token"
)

// Issuers returns a verifier for the tokens of several issuers, such as the old and the new one while clients move. Each
// of verifiers is for another issuer and keeps its own keys, audience, profile, feed and clock; a token is checked by
// the one for its "iss" alone. [Caller.Issuer] is the issuer of a caller: a client id means a client of that issuer, and
// another issuer may have given the same id to another client.
//
// The verifier has the [OnRefusal], [Telemetry], [ResourceMetadata] and [DescribeResource] of the first of verifiers, for
// the calls of all; the metadata list each issuer whose verifier has the resource in its audience. Each of verifiers keeps
// the metrics of its own cache and feed. [Verifier.Feed] is the oldest knowledge of any, and [Verifier.Close] closes all. It is
// an error if two are for the same issuer.
func Issuers(verifiers ...*Verifier) (*Verifier, error) {
	if len(verifiers) == 0 {
		return nil, errors.New("verify: no verifiers")
	}
	all := &Verifier{members: map[string]*Verifier{}, certificates: newThumbprints()}
	for _, v := range verifiers {
		if v == nil || v.tokens == nil {
			return nil, errors.New("verify: each verifier must be one that New returned")
		}
		issuer := v.tokens.Issuer()
		if all.members[issuer] != nil {
			return nil, fmt.Errorf("verify: two verifiers for the issuer %s", oauth.RedactURL(issuer))
		}
		all.members[issuer] = v
		all.caches = append(all.caches, v.tokens)
	}
	first := verifiers[0]
	all.onRefusal, all.instruments, all.resourceMetadata = first.onRefusal, first.instruments, first.resourceMetadata
	var err error
	if all.resource, err = first.resource.publish(verifiers...); err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return all, nil
}

// verifyMember returns the claims of a valid token of one of the issuers.
func (v *Verifier) verifyMember(ctx context.Context, raw string) (*token.Claims, error) {
	claims, err := v.caches.Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	if v.member(claims).stale() {
		return nil, ErrStale
	}
	return claims, nil
}

// member returns the verifier of the issuer of claims. It returns nil for claims that another verifier checked, of an
// issuer that is none of v's.
func (v *Verifier) member(claims *token.Claims) *Verifier {
	if v.members == nil {
		return v
	}
	return v.members[claims.Issuer]
}

// feedOfMembers returns the state of the oldest knowledge of any issuer.
func (v *Verifier) feedOfMembers() FeedStatus {
	all := FeedStatus{Complete: true}
	for _, member := range v.members {
		feed := member.Feed()
		if !feed.Followed {
			continue
		}
		all.Followed = true
		all.Complete = all.Complete && feed.Complete
		all.Age = max(all.Age, feed.Age)
		all.Live += feed.Live
		all.StaleCalls += feed.StaleCalls
	}
	all.Complete = all.Complete && all.Followed
	return all
}
