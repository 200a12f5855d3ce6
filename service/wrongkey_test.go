package service_test

import (
	"context"
	"testing"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
)

// wrongKey is a key of the Redis that is not as Grantor writes it: the commands that make it so, and those that repair it.
type wrongKey struct {
	damage, repair [][]any
	// harmless reports whether changes succeed without the repair.
	harmless bool
}

// displaced returns a key of another type, which is repaired by putting back what was there.
func displaced(key string) wrongKey {
	const backup = "grantor:{grantor}:backup"
	return wrongKey{
		damage: [][]any{{"rename", key, backup}, {"set", key, "x"}},
		repair: [][]any{{"del", key}, {"rename", backup, key}},
	}
}

// endings are changes of clients of those names. After each the client gets no more tokens.
var endings = map[string]func(context.Context, grantorv1.ClientServiceClient) error{
	"restricted": func(ctx context.Context, clients grantorv1.ClientServiceClient) error {
		_, err := clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{
			ClientId: "restricted", AllowedNetworks: []string{"10.9.9.0/24"},
		}})
		return err
	},
	"disabled": func(ctx context.Context, clients grantorv1.ClientServiceClient) error {
		_, err := clients.UpdateClient(ctx, &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "disabled", Disabled: new(true)}})
		return err
	},
	"deleted": func(ctx context.Context, clients grantorv1.ClientServiceClient) error {
		_, err := clients.DeleteClient(ctx, &grantorv1.DeleteClientRequest{ClientId: "deleted"})
		return err
	},
}

func (r *replica) issueTo(ctx context.Context, id string) (string, error) {
	answer, err := r.tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: oauth.GrantClientCredentials, ClientId: id, ClientSecret: secret})
	return answer.GetAccessToken(), err
}

// TestEndedOverWrongKey restricts, disables and deletes clients that the replicas have in their caches, while a key that the
// change needs is of another type, or the feed is exhausted. If the change fails, it succeeds after the repair. Either way
// the client gets no more tokens from any replica.
func TestEndedOverWrongKey(t *testing.T) {
	const feed, used = "grantor:{grantor}:feed", "grantor:{grantor}:used"
	for name, wrong := range map[string]wrongKey{
		"uses":  {damage: [][]any{{"del", used}, {"set", used, "x"}}, harmless: true},
		"index": displaced("grantor:{grantor}:clients"),
		"feed":  displaced(feed),
		"feed exhausted": {
			damage: [][]any{{"xadd", feed, "18446744073709551615-18446744073709551615", "k", "client", "i", "zz"}},
			repair: [][]any{{"del", feed}}, // as doctor recommends
		},
	} {
		t.Run(name, func(t *testing.T) { testEndedOver(t, wrong) })
	}
}

func testEndedOver(t *testing.T, wrong wrongKey) {
	c := newCluster(t)
	a, b := c.start(t), c.start(t)
	wanted := withBoss(manifest())
	for id := range endings {
		svc := manifest().Clients[0]
		svc.ID = must.Get(oauth.ParseClientID(id))
		wanted.Clients = append(wanted.Clients, svc)
	}
	a.apply(t, wanted)
	must.Succeed(t, b.CatchUp(t.Context()))
	ctx, clients := a.adminContext(t), grantorv1.NewClientServiceClient(a.conn)
	revoked := a.token(t)
	must.Succeed(t, a.revoke(t.Context(), revoked))
	issued := make(map[string]string)
	for id := range endings {
		issued[id] = must.Get(a.issueTo(t.Context(), id))
		must.Get(b.issueTo(t.Context(), id))
	}
	run := func(commands [][]any) {
		for _, command := range commands {
			must.Succeed(t, c.redis.Client().Do(t.Context(), command...).Err())
		}
	}
	run(wrong.damage)
	for id, end := range endings {
		if err := end(ctx, clients); (err == nil) != wrong.harmless {
			t.Errorf("%s: got %v, want success: %t", id, err, wrong.harmless)
		}
	}
	run(wrong.repair)
	for id, end := range endings {
		if !wrong.harmless {
			must.Succeed(t, end(ctx, clients))
		}
		for _, r := range []*replica{a, b} {
			must.Eventually(t, id+" gets no token", func() bool {
				_, err := r.issueTo(t.Context(), id)
				return err != nil
			})
			must.Eventually(t, "its token is revoked", func() bool {
				answer, err := r.ask(t.Context(), issued[id])
				return err == nil && (id == "restricted" || !answer.GetActive())
			})
		}
	}
	// The repair loses no earlier revocation, not even for a replica that starts after it.
	for _, r := range []*replica{a, b, c.start(t)} {
		must.Eventually(t, "the earlier revocation is known", func() bool {
			answer, err := r.ask(t.Context(), revoked)
			return err == nil && !answer.GetActive()
		})
		r.token(t) // other clients are not affected
	}
}
