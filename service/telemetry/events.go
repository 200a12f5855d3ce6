package telemetry

// The audit events for decisions about a caller.
const (
	EventTokenIssued       = "token.issued"
	EventTokenRefused      = "token.refused"
	EventIntrospected      = "token.introspected"
	EventIntrospectRefused = "token.introspect_refused"
	EventRevoked           = "token.revoked"
	EventRevokeRefused     = "token.revoke_refused"
	EventAdminRefused      = "admin.refused"
	EventLeftOut           = "audit.left_out"
)

// The audit events for changes.
const (
	EventClientCreated   = "client.created"
	EventClientChanged   = "client.changed"
	EventClientDeleted   = "client.deleted"
	EventClientRevoked   = "client.revoked"
	EventSecretCreated   = "client.secret_created"
	EventSecretRotated   = "client.secret_rotated"
	EventSecretChanged   = "client.secret_changed"
	EventSecretDeleted   = "client.secret_deleted"
	EventResourceCreated = "resource.created"
	EventResourceChanged = "resource.changed"
	EventResourceDeleted = "resource.deleted"
	EventIssuerCreated   = "trust.issuer_created"
	EventIssuerChanged   = "trust.issuer_changed"
	EventIssuerDeleted   = "trust.issuer_deleted"
	EventWorkloadCreated = "trust.workload_created"
	EventWorkloadChanged = "trust.workload_changed"
	EventWorkloadDeleted = "trust.workload_deleted"
	EventKeysRotated     = "key.rotated"
	EventKeyRetired      = "key.retired"
	EventKeyCompromised  = "key.compromised"
	EventKeyGone         = "key.gone"
)

// Stream is one of the streams of an [AuditSink].
type Stream string

// The streams. They are separate so that none can displace the events of another: anyone can be refused, only clients
// get tokens, and only administrators make changes.
const (
	Changes   Stream = "changes"
	Decisions Stream = "decisions"
	Refusals  Stream = "refusals"
)

// Streams lists all streams, the most important one first.
var Streams = []Stream{Changes, Decisions, Refusals}

// Event declares an audit event.
type Event struct {
	Name string
	// When describes what has happened.
	When string
	// Attributes are the attributes of every event of this name, in order; see [Attributes].
	Attributes []string
	// Stream is the stream that holds the event. An [EventLeftOut] can be in any.
	Stream Stream
	// Sampled reports whether events above a rate are left out.
	Sampled bool
}

// Events declares all audit events. docs/audit.md contains them as a table.
var Events = []Event{
	{EventTokenIssued, "an access token was issued", attributes(clientAttrs, "jti", "scope", "aud", "lifetime", "cnf"), Decisions, false},
	{EventTokenRefused, "a request for an access token was refused", attributes(clientAttrs, refusalAttrs...), Refusals, true},
	{EventIntrospected, "a client introspected tokens; one event sums up a second of one connection", attributes(clientAttrs, "tokens", "active"), Decisions, false},
	{EventIntrospectRefused, "a request for introspection was refused", attributes(clientAttrs, refusalAttrs...), Refusals, true},
	{EventRevoked, "a client revoked one of its tokens, or all of them", attributes(clientAttrs, "jti", "all"), Decisions, false},
	{EventRevokeRefused, "a request for revocation was refused", attributes(clientAttrs, refusalAttrs...), Refusals, true},
	{EventAdminRefused, "an administrative call was refused, or failed", attributes(adminAttrs, "method", "reason", "cause"), Refusals, true},
	{EventLeftOut, "events were left out, see below", []string{"of", "reason", "count", "since"}, Refusals, false},

	{EventClientCreated, "a client was registered", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventClientChanged, "a client was changed, disabled or enabled", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventClientDeleted, "a client was deleted", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventClientRevoked, "all tokens of a client were revoked", attributes(adminAttrs, "id"), Changes, false},
	{EventSecretCreated, "a secret was added to a client", attributes(adminAttrs, "id", "secret_id", "changes"), Changes, false},
	{EventSecretRotated, "a secret was added to a client, and the others were set to expire", attributes(adminAttrs, "id", "secret_id", "grace_period", "changes"), Changes, false},
	{EventSecretChanged, "the expiry of a secret was changed", attributes(adminAttrs, "id", "secret_id", "changes"), Changes, false},
	{EventSecretDeleted, "a secret was deleted", attributes(adminAttrs, "id", "secret_id", "changes"), Changes, false},
	{EventResourceCreated, "a resource was registered", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventResourceChanged, "a resource was changed", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventResourceDeleted, "a resource was deleted", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventIssuerCreated, "a trusted issuer or trust domain was added", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventIssuerChanged, "a trusted issuer or trust domain was changed", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventIssuerDeleted, "a trusted issuer or trust domain was removed", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventWorkloadCreated, "a workload was added", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventWorkloadChanged, "a workload was changed", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventWorkloadDeleted, "a workload was removed", attributes(adminAttrs, "id", "changes"), Changes, false},
	{EventKeysRotated, "a signing key was created, by an administrator or on schedule", attributes(adminAttrs, "alg", "kid", "replaces", "activate_time"), Changes, false},
	{EventKeyRetired, "an administrator retired a signing key", attributes(adminAttrs, "kid"), Changes, false},
	{EventKeyCompromised, "an administrator removed a signing key and revoked its tokens", attributes(adminAttrs, "kid"), Changes, false},
	{EventKeyGone, "a signing key was removed because every token that it signed has expired", attributes(adminAttrs, "alg", "kid"), Changes, false},
}

// The attributes that several events begin or end with.
var (
	clientAttrs  = []string{"client_id", "auth_method", "identity", "peer"}
	adminAttrs   = []string{"by", "peer"}
	refusalAttrs = []string{"error", "reason", "cause"}
)

// attributes returns first followed by more.
func attributes(first []string, more ...string) []string {
	return append(append([]string(nil), first...), more...)
}

// Attribute declares an attribute of audit events. It has the same meaning in all of them.
type Attribute struct{ Name, Meaning string }

// Attributes declares all attributes of audit events. docs/audit.md contains them as a table.
var Attributes = []Attribute{
	{"client_id", "client that sent the request; in a refusal the id that was claimed, empty if no client can have it or the request could not be read"},
	{"auth_method", "method by which the client authenticated, as in RFC 7591; empty if it did not get that far"},
	{"identity", "what the issuer or authority that vouches for the client calls it, or the `kid` of the client's own key; empty for a secret"},
	{"peer", "address and port of the caller; empty if there was no call"},
	{"jti", "id of the token; in `token.revoked` empty if there was nothing to revoke, or if `all` is true"},
	{"scope", "scopes of the token, separated by spaces"},
	{"aud", "list of the resources that the token is for"},
	{"lifetime", "lifetime of the token, in seconds"},
	{"cnf", "kinds of the keys that the token is bound to, separated by a space: `x5t#S256` for a certificate, `jkt` for a key of DPoP proofs; empty for a bearer token"},
	{"error", "OAuth error code in the response"},
	{"reason", "reason as a word of a fixed list; it can be more specific than the response"},
	{"cause", "reason in words, for the operator"},
	{"tokens", "number of tokens that were introspected"},
	{"active", "number of them that are active"},
	{"all", "true if the client revoked all of its tokens"},
	{"by", "client that made the call; empty for the issuer itself, and for its operator: `serve --apply`, and `grantor apply` with the Redis"},
	{"method", "method that was called, such as `grantor.v1.ClientService/GetClient`; empty if the request could not be read"},
	{"id", "client, resource, trusted issuer or workload that was changed"},
	{"changes", "list of the fields that changed, each with `field`, `from` and `to`; the values of a list are separated by spaces, a secret is its id and its expiry"},
	{"secret_id", "id of the secret"},
	{"grace_period", "time for which the other secrets stay valid, in seconds"},
	{"alg", "algorithm of the key"},
	{"kid", "id of the key"},
	{"replaces", "id of the key that signs until then; empty for the first one"},
	{"activate_time", "time from which the key signs"},
	{"of", "what was left out: the name of an event; `changes`, `decisions` or `refusals` for events that are missing only in that stream; `fault` for errors in the log"},
	{"count", "number of events that were left out"},
	{"since", "time of the first of them"},
}

// Reason declares a value of the attribute "reason".
type Reason struct{ Name, Meaning string }

// Reasons declares all values of the attribute "reason", except those in an [EventLeftOut] about faults. docs/audit.md
// contains them as a table.
var Reasons = []Reason{
	{"unknown_client", "no client has the id"},
	{"wrong_secret", "the client has no such secret, or it has expired"},
	{"client_disabled", "the client is disabled"},
	{"auth_method_not_allowed", "the client may not use this authentication method"},
	{"missing_credentials", "the request has no client ID, or no secret"},
	{"malformed_credentials", "the credentials are malformed"},
	{"wrong_assertion", "the client assertion is not one of the client's, has expired, or is for another server"},
	{"assertion_replayed", "the client assertion was used before"},
	{"wrong_certificate", "the client certificate is not one of the client's, or no authority vouches for it"},
	{"untrusted_issuer", "the client assertion is of an issuer that is neither the client nor a trusted issuer"},
	{"no_matching_rule", "a trusted issuer vouches for the caller, but no rule makes it the client"},
	{"network_not_allowed", "the client may not call from this address"},
	{"too_many_failures", "too many failed authentications from this address"},
	{"quota", "the client has used up its quota of tokens"},
	{"stale_knowledge", "the replica has not heard from Redis for too long"},
	{"store_unreachable", "Redis did not answer this request"},
	{"call_ended", "the caller went away, or its deadline passed, before Redis answered"},
	{"keys_unreachable", "the keys by which the client proves itself could not be fetched"},
	{"too_many_secrets", "too many chosen secrets are being checked"},
	{"invalid_request", "OAuth error: the request is malformed"},
	{"invalid_client", "OAuth error: client authentication failed, for none of the reasons above"},
	{"unauthorized_client", "OAuth error: the client may not do this"},
	{"unsupported_grant_type", "OAuth error: the grant type is not supported"},
	{"invalid_scope", "OAuth error: the client may not have the scope"},
	{"invalid_target", "OAuth error: there is no such resource, or the client may not ask for it"},
	{"invalid_dpop_proof", "OAuth error: the DPoP proof is not one for the request, or was used before"},
	{"use_dpop_nonce", "OAuth error: the DPoP proof must contain a nonce of this server"},
	{"temporarily_unavailable", "OAuth error: the server cannot answer now, for none of the reasons above"},
	{"server_error", "OAuth error: a fault of the server itself"},
	{"no_token", "administrative call without a token"},
	{"malformed", "the token is malformed"},
	{"no_access_token", "the token is not an access token"},
	{"wrong_signature", "the token was altered, or signed by another issuer"},
	{"unknown_key", "the token was signed by a key that is not in the key ring"},
	{"other_issuer", "the token is from another issuer"},
	{"other_audience", "the token is not for the administrative services"},
	{"expired", "the token has expired"},
	{"not_yet_valid", "the token is not valid yet"},
	{"revoked", "the token was revoked"},
	{"wrong_proof", "the token is bound to a key that the caller did not prove"},
	{"no_keys", "the token could not be verified, because the keys are not available"},
	{"other", "the token was refused for another reason"},
	{"insufficient_scope", "the token lacks the scope"},
	{"no_rule", "no rule allows the method"},
	{"not_found", "there is no such client, resource or key"},
	{"already_exists", "the name is already taken"},
	{"conflict", "another caller has changed it since it was read"},
	{"failed_precondition", "the key is retiring already"},
	{streamBehind, "only in `audit.left_out`: the stream could not be written in time"},
}

// eventsByName maps the name of an event to its declaration.
var eventsByName = func() map[string]Event {
	events := make(map[string]Event, len(Events))
	for _, e := range Events {
		events[e.Name] = e
	}
	return events
}()
