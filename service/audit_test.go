package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/telemetry"
)

// auditEvents returns the audit events that the cluster keeps, the oldest of each stream first.
func (c *cluster) auditEvents(t testing.TB) []redisstore.AuditEntry {
	t.Helper()
	trail := c.open(t).AuditTrail(10_000)
	var all []redisstore.AuditEntry
	for _, stream := range telemetry.Streams {
		kept, err := trail.Before(t.Context(), stream, "", 10_000)
		must.Succeed(t, err)
		slices.Reverse(kept)
		all = append(all, kept...)
	}
	return all
}

// attributeNames returns the names of an event's attributes, in order.
func attributeNames(t testing.TB, kept redisstore.AuditEntry) []string {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(kept.Attributes))
	_, err := decoder.Token()
	must.Succeed(t, err)
	var names []string
	for decoder.More() {
		name, err := decoder.Token()
		must.Succeed(t, err)
		names = append(names, name.(string))
		var value json.RawMessage
		must.Succeed(t, decoder.Decode(&value))
	}
	return names
}

// TestAuditEvents causes every audit event, and compares each with its declaration.
func TestAuditEvents(t *testing.T) {
	c := newCluster(t)
	c.audited = true
	began := time.Now()
	ahead := func(days int) {
		c.now = func() time.Time { return time.Now().Add(time.Duration(days) * 24 * time.Hour) }
	}
	r := c.start(t)
	r.apply(t, withBoss(manifest()))
	causeDecisions(t, r)
	causeChanges(t, r)
	r.stop()
	ahead(31) // the next key is due
	c.start(t).stop()
	ahead(33) // and no token of the previous one is left
	c.start(t).stop()

	events := c.auditEvents(t)
	for _, declared := range telemetry.Events {
		of := func(kept redisstore.AuditEntry) bool { return kept.Event == declared.Name }
		if !slices.ContainsFunc(events, of) {
			t.Errorf("got no %s", declared.Name)
		}
		for _, kept := range events {
			if of(kept) && !slices.Equal(attributeNames(t, kept), declared.Attributes) {
				t.Errorf("%s: got %s, want the attributes %v", kept.Event, kept.Attributes, declared.Attributes)
			}
		}
	}
	for _, kept := range events {
		if !slices.ContainsFunc(telemetry.Events, func(e telemetry.Event) bool { return e.Name == kept.Event }) {
			t.Errorf("the event %s is not declared", kept.Event)
		}
		if kept.Time.Before(began.Truncate(time.Millisecond)) || kept.Time.After(time.Now()) {
			t.Errorf("%s: got the time %s", kept.Event, kept.Time)
		}
	}
	expectEvent(t, events, "token.refused", `"client_id":"svc","auth_method":"client_secret_post","identity":""`, `"error":"invalid_client","reason":"wrong_secret"`)
	expectEvent(t, events, "token.refused", `"client_id":"nobody"`, `"reason":"unknown_client"`)
	expectEvent(t, events, "admin.refused", `"by":"","peer":"127.0.0.1:`, `"method":"grantor.v1.KeyService/ListKeys","reason":"no_token"`)
	expectEvent(t, events, "admin.refused", `"by":"boss"`, `"reason":"not_found"`)
	expectEvent(t, events, "audit.left_out", `"of":"admin.refused","reason":"no_token"`)
	expectEvent(t, events, "client.created", `"by":"boss","peer":"127.0.0.1:`, `"id":"new"`, `{"field":"scopes","from":"","to":"api1"}`)
	expectEvent(t, events, "client.changed", `"id":"new"`, `"changes":[{"field":"client_name","from":"","to":"A name"},{"field":"disabled","from":"","to":"true"}]`)
	expectEvent(t, events, "client.changed", `"id":"new"`, `"changes":[]`)
	expectEvent(t, events, "client.secret_rotated", `"grace_period":60`, ` (until `)
	expectEvent(t, events, "client.deleted", `"id":"new"`, `{"field":"client_name","from":"A name","to":""}`)
	expectEvent(t, events, "client.created", `"by":"boss"`, `"id":"applied"`)
	expectEvent(t, events, "resource.changed", `"changes":[{"field":"scopes","from":"n1","to":"n1 n2"}]`)
	expectEvent(t, events, "key.rotated", `"by":"","peer":"","alg":"ES256"`, `"replaces":""`)
	expectEvent(t, events, "key.rotated", `"by":"boss"`, `"alg":"ES256"`)
	expectEvent(t, events, "key.gone", `"by":""`)
}

// expectEvent expects an event of the name that contains all of the texts.
func expectEvent(t *testing.T, events []redisstore.AuditEntry, name string, texts ...string) {
	t.Helper()
	if !slices.ContainsFunc(events, func(kept redisstore.AuditEntry) bool {
		return kept.Event == name && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(string(kept.Attributes), text) })
	}) {
		t.Errorf("no %s contains %q", name, texts)
	}
}

// causeDecisions makes requests that are granted and refused.
func causeDecisions(t *testing.T, r *replica) {
	t.Helper()
	raw := r.token(t)
	expectCode(t, r.tryWith(t, "a wrong secret"), codes.Unauthenticated)
	_, err := r.tokens.IssueToken(t.Context(), &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "nobody", ClientSecret: "a wrong secret"})
	expectCode(t, err, codes.Unauthenticated)
	r.expectActive(t, raw, true)
	_, err = r.tokens.IntrospectToken(t.Context(), &grantorv1.IntrospectTokenRequest{ClientId: "res1", ClientSecret: secret})
	expectCode(t, err, codes.InvalidArgument)
	_, err = r.tokens.IntrospectTokens(t.Context(), &grantorv1.IntrospectTokensRequest{ClientId: "res1", ClientSecret: secret})
	expectCode(t, err, codes.InvalidArgument)
	must.Succeed(t, r.revoke(t.Context(), raw))
	must.Succeed(t, r.revoke(t.Context(), "no token at all"))
	expectCode(t, r.revoke(t.Context(), ""), codes.InvalidArgument)
	must.Succeed(t, r.revokeAll(t.Context()))
}

// causeChanges makes every administrative change, and calls that are refused.
func causeChanges(t *testing.T, r *replica) {
	t.Helper()
	clients, resources, keys := grantorv1.NewClientServiceClient(r.conn), grantorv1.NewResourceServiceClient(r.conn), grantorv1.NewKeyServiceClient(r.conn)
	ctx := r.adminContext(t)
	do(t, ctx, clients.CreateClient, &grantorv1.CreateClientRequest{Client: &grantorv1.Client{ClientId: "new", Scopes: []string{"api1"}}})
	change := &grantorv1.UpdateClientRequest{Client: &grantorv1.Client{ClientId: "new", ClientName: "A name", Disabled: new(true)}}
	do(t, ctx, clients.UpdateClient, change)
	do(t, ctx, clients.UpdateClient, change)
	do(t, ctx, clients.RevokeTokens, &grantorv1.RevokeTokensRequest{ClientId: "new"})
	made := do(t, ctx, clients.CreateClientSecret, &grantorv1.CreateClientSecretRequest{ClientId: "new"})
	do(t, ctx, clients.RotateClientSecret, &grantorv1.RotateClientSecretRequest{ClientId: "new", GracePeriod: durationpb.New(time.Minute)})
	do(t, ctx, clients.UpdateClientSecret, &grantorv1.UpdateClientSecretRequest{ClientId: "new", Secret: &grantorv1.ClientSecret{
		SecretId: made.GetSecretId(), ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
	}})
	do(t, ctx, clients.DeleteClientSecret, &grantorv1.DeleteClientSecretRequest{ClientId: "new", SecretId: made.GetSecretId()})
	do(t, ctx, clients.DeleteClient, &grantorv1.DeleteClientRequest{ClientId: "new"})
	do(t, ctx, resources.CreateResource, &grantorv1.CreateResourceRequest{Resource: &grantorv1.Resource{Resource: "urn:new", Scopes: []string{"n1"}}})
	do(t, ctx, resources.UpdateResource, &grantorv1.UpdateResourceRequest{Resource: &grantorv1.Resource{Resource: "urn:new", Scopes: []string{"n1", "n2"}}})
	do(t, ctx, resources.DeleteResource, &grantorv1.DeleteResourceRequest{Resource: "urn:new"})
	do(t, ctx, resources.ApplyManifest, &grantorv1.ApplyManifestRequest{Clients: []*grantorv1.WantedClient{{
		Client: &grantorv1.Client{ClientId: "applied", Scopes: []string{"api1"}}, ClientSecret: secret,
	}}})
	causeTrustChanges(t, ctx, r)
	for _, k := range do(t, ctx, keys.RotateKeys, &grantorv1.RotateKeysRequest{}).GetKeys() {
		if k.GetState() == grantorv1.SigningKey_STATE_ACTIVE {
			do(t, ctx, keys.RetireKey, &grantorv1.RetireKeyRequest{Kid: k.GetKid()})
		} else {
			do(t, ctx, keys.CompromiseKey, &grantorv1.CompromiseKeyRequest{Kid: k.GetKid()})
		}
	}
	_, err := clients.GetClient(ctx, &grantorv1.GetClientRequest{ClientId: "nobody"})
	expectCode(t, err, codes.NotFound)
	must.Eventually(t, "some of many refusals are left out", func() bool {
		for range 50 {
			_, err = keys.ListKeys(t.Context(), &grantorv1.ListKeysRequest{})
			expectCode(t, err, codes.Unauthenticated)
		}
		return r.log.count("event=audit.left_out") > 0
	})
}

// causeTrustChanges makes every change of a trusted issuer and of a workload.
func causeTrustChanges(t *testing.T, ctx context.Context, r *replica) {
	t.Helper()
	trusts := grantorv1.NewTrustServiceClient(r.conn)
	const id = "https://elsewhere.example"
	do(t, ctx, trusts.CreateTrustedIssuer, &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{Issuer: id}})
	do(t, ctx, trusts.UpdateTrustedIssuer, &grantorv1.UpdateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{Id: id, SingleUse: true}})
	do(t, ctx, trusts.CreateWorkload, &grantorv1.CreateWorkloadRequest{Workload: &grantorv1.Workload{ClientId: "w:{a}", Issuer: id, Subject: "{a}"}})
	do(t, ctx, trusts.UpdateWorkload, &grantorv1.UpdateWorkloadRequest{Workload: &grantorv1.Workload{ClientId: "w:{a}", Scopes: []string{"api1"}}})
	do(t, ctx, trusts.DeleteWorkload, &grantorv1.DeleteWorkloadRequest{ClientId: "w:{a}"})
	do(t, ctx, trusts.DeleteTrustedIssuer, &grantorv1.DeleteTrustedIssuerRequest{Id: id})
}

// do makes a call that must succeed.
func do[Request, Reply any, Option any](t *testing.T, ctx context.Context, call func(context.Context, *Request, ...Option) (*Reply, error), request *Request) *Reply {
	t.Helper()
	reply, err := call(ctx, request)
	must.Succeed(t, err)
	return reply
}
