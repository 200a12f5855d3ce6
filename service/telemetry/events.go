package telemetry

// The audit events that decide about a caller.
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

// The audit events that change something.
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
	EventKeysRotated     = "key.rotated"
	EventKeyRetired      = "key.retired"
	EventKeyCompromised  = "key.compromised"
	EventKeyGone         = "key.gone"
)

// Stream is one of those that a [AuditSink] keeps.
type Stream string

// The streams. They are apart so that none pushes out the events of another: anybody can be refused, only clients are given
// tokens, and only administrators change something.
const (
	Changes   Stream = "changes"
	Decisions Stream = "decisions"
	Refusals  Stream = "refusals"
)

// Streams are all streams, the more important first.
var Streams = []Stream{Changes, Decisions, Refusals}

// Event declares an audit event.
type Event struct {
	Name string
	// When says what has happened.
	When string
	// Attributes are those that every event of the name has, in this order; see [Attributes].
	Attributes []string
	// Stream is where it is kept. An [EventLeftOut] may be in any.
	Stream Stream
	// Sampled says that of many with one reason not all are written.
	Sampled bool
}

// Events declares all audit events. docs/audit.md has them as a table.
var Events = []Event{
	{EventTokenIssued, "a client was given an access token", attributes(asked, "jti", "scope", "aud", "lifetime"), Decisions, false},
	{EventTokenRefused, "a request for an access token was refused", attributes(asked, refused...), Refusals, true},
	{EventIntrospected, "a client was told about tokens: all that it asked over one connection in a second", attributes(asked, "tokens", "active"), Decisions, false},
	{EventIntrospectRefused, "a request for introspection was refused", attributes(asked, refused...), Refusals, true},
	{EventRevoked, "a client took back a token of its own, or all", attributes(asked, "jti", "all"), Decisions, false},
	{EventRevokeRefused, "a request for revocation was refused", attributes(asked, refused...), Refusals, true},
	{EventAdminRefused, "an administrative call was refused, or failed", attributes(made, "method", "reason", "cause"), Refusals, true},
	{EventLeftOut, "events were left out, see below", []string{"of", "reason", "count", "since"}, Refusals, false},

	{EventClientCreated, "a client was registered", attributes(made, "id", "changes"), Changes, false},
	{EventClientChanged, "a client was changed, disabled or enabled", attributes(made, "id", "changes"), Changes, false},
	{EventClientDeleted, "a client was deleted", attributes(made, "id", "changes"), Changes, false},
	{EventClientRevoked, "all tokens of a client were revoked", attributes(made, "id"), Changes, false},
	{EventSecretCreated, "a client was given one more secret", attributes(made, "id", "secret_id", "changes"), Changes, false},
	{EventSecretRotated, "a client was given a new secret, and the others an end", attributes(made, "id", "secret_id", "grace_period", "changes"), Changes, false},
	{EventSecretChanged, "a secret was given another end", attributes(made, "id", "secret_id", "changes"), Changes, false},
	{EventSecretDeleted, "a secret was taken away", attributes(made, "id", "secret_id", "changes"), Changes, false},
	{EventResourceCreated, "a resource was registered", attributes(made, "id", "changes"), Changes, false},
	{EventResourceChanged, "a resource was changed", attributes(made, "id", "changes"), Changes, false},
	{EventResourceDeleted, "a resource was deleted", attributes(made, "id", "changes"), Changes, false},
	{EventKeysRotated, "a signing key was made, by an administrator or because it was time", attributes(made, "alg", "kid", "replaces", "activate_time"), Changes, false},
	{EventKeyRetired, "an administrator took a signing key out of use", attributes(made, "kid"), Changes, false},
	{EventKeyCompromised, "an administrator removed a signing key and revoked its tokens", attributes(made, "kid"), Changes, false},
	{EventKeyGone, "a signing key was removed because no token is left that it signed", attributes(made, "alg", "kid"), Changes, false},
}

// The attributes that several events begin or end with.
var (
	asked   = []string{"client_id", "auth_method", "peer"}
	made    = []string{"by", "peer"}
	refused = []string{"error", "reason", "cause"}
)

func attributes(first []string, more ...string) []string {
	return append(append([]string(nil), first...), more...)
}

// Attribute declares an attribute of audit events. It means the same in all of them.
type Attribute struct{ Name, Meaning string }

// Attributes declares all attributes of audit events. docs/audit.md has them as a table.
var Attributes = []Attribute{
	{"client_id", "the client that asked; in a refusal the id that was claimed, empty where it could be no client's or the request could not be read"},
	{"auth_method", "how the client proved who it is, as in RFC 7591; empty where it did not come to that"},
	{"peer", "address and port that the call came from; empty where nobody called"},
	{"jti", "id of the token; in `token.revoked` empty where there was nothing to take back, or `all` is true"},
	{"scope", "scopes of the token, with blanks between them"},
	{"aud", "list of the resources that the token is for"},
	{"lifetime", "life of the token, in seconds"},
	{"error", "OAuth error code that the caller was told"},
	{"reason", "why, as one word of a fixed list: the true reason, where the caller is told less"},
	{"cause", "why, in words for the operator"},
	{"tokens", "number of tokens that were asked about"},
	{"active", "number of those that are active"},
	{"all", "true where the client took back all of its tokens"},
	{"by", "client that administers; empty for the issuer itself, and for who runs it: `serve --apply`, and `grantor apply` with the Redis"},
	{"method", "method that was called, as `grantor.v1.ClientService/GetClient`; empty where the request could not be read"},
	{"id", "client or resource that was changed"},
	{"changes", "list of the fields that changed, each with `field`, `from` and `to`; lists have blanks between, a secret is its id and its end"},
	{"secret_id", "id of the secret"},
	{"grace_period", "time for which the other secrets still count, in seconds"},
	{"alg", "algorithm of the key"},
	{"kid", "id of the key"},
	{"replaces", "id of the key that signs until then; empty for a first one"},
	{"activate_time", "when the key begins to sign"},
	{"of", "what was left out: the name of an event, `changes`, `decisions` or `refusals` for events that are missing in that stream alone, `fault` for errors in the log"},
	{"count", "how many were left out"},
	{"since", "when the first of them was"},
}

// Reason declares a word of the attribute "reason".
type Reason struct{ Name, Meaning string }

// Reasons declares all words that the attribute "reason" can be, but for what an [EventLeftOut] says of faults. docs/audit.md
// has them as a table.
var Reasons = []Reason{
	{"unknown_client", "no client has the id"},
	{"wrong_secret", "the secret is none of the client's, or has expired"},
	{"client_disabled", "the client is disabled"},
	{"auth_method_not_allowed", "the client may not prove itself in this way"},
	{"malformed_credentials", "the credentials cannot be read"},
	{"assertion_not_offered", "the request has a client assertion, which is not offered"},
	{"network_not_allowed", "the client may not call from this address"},
	{"too_many_failures", "too many failed authentications from there"},
	{"quota", "the client has had all tokens that it may in this period"},
	{"stale_knowledge", "the replica has had no word from Redis for too long"},
	{"store_unreachable", "Redis did not answer this request"},
	{"too_many_secrets", "too many chosen secrets are being checked"},
	{"invalid_request", "OAuth error: the request is malformed"},
	{"invalid_client", "OAuth error: the client is not proved, for none of the reasons above"},
	{"unauthorized_client", "OAuth error: the client may not do this"},
	{"unsupported_grant_type", "OAuth error: there is no such grant"},
	{"invalid_scope", "OAuth error: the client may not have the scope"},
	{"invalid_target", "OAuth error: there is no such resource, or the client may not ask for it"},
	{"temporarily_unavailable", "OAuth error: the server cannot answer now, for none of the reasons above"},
	{"server_error", "OAuth error: a fault of the server's own"},
	{"no_token", "administrative call without a token"},
	{"malformed", "its token is none"},
	{"no_access_token", "its token is not an access token"},
	{"wrong_signature", "its token was altered, or signed by somebody else"},
	{"unknown_key", "its token was signed by a key that is not in the ring"},
	{"other_issuer", "its token is from elsewhere"},
	{"other_audience", "its token is not for administration"},
	{"expired", "its token has expired"},
	{"not_yet_valid", "its token begins later"},
	{"revoked", "its token was revoked"},
	{"no_keys", "its token could not be checked: the keys are not available"},
	{"other", "its token is refused, for none of these reasons"},
	{"insufficient_scope", "its token lacks the scope"},
	{"no_rule", "no rule allows the method"},
	{"not_found", "there is no such client, resource or key"},
	{"already_exists", "the name is taken"},
	{"conflict", "somebody else changed it meanwhile"},
	{"failed_precondition", "the key is retiring already"},
	{behind, "in `audit.left_out` alone: the stream could not be written in time"},
}

// declared has name → declaration.
var declared = func() map[string]Event {
	events := make(map[string]Event, len(Events))
	for _, e := range Events {
		events[e.Name] = e
	}
	return events
}()
