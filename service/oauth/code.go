package oauth

// ErrorDomain is the domain of every google.rpc.ErrorInfo that Grantor sends. The reason in it is a [Code].
const ErrorDomain = "grantor"

// The codes of RFC 6750 §3.1 for a request whose access token is refused.
const (
	InvalidToken      Code = "invalid_token"
	InsufficientScope Code = "insufficient_scope"
)

// The codes of RFC 9449 §5, §7.1 and §8 for a request whose DPoP proof is refused.
const (
	InvalidDPoPProof Code = "invalid_dpop_proof"
	UseDPoPNonce     Code = "use_dpop_nonce"
)

// The codes of the guarded and administrative methods for which no RFC has a word.
const (
	NoRule             Code = "no_rule"
	NotFound           Code = "not_found"
	AlreadyExists      Code = "already_exists"
	Conflict           Code = "conflict"
	FailedPrecondition Code = "failed_precondition"
)

// NoToken is the reason of a call to a guarded method that has no access token. Its code is [InvalidToken].
const NoToken Reason = "no_token"
