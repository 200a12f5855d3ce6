package remote

import (
	"errors"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/service/oauth"
)

// Authentication finds out by which method a client may authenticate: it may be registered for one of those that the
// issuer offers. It is safe for concurrent use by multiple goroutines.
type Authentication struct {
	Credentials

	// methods are the methods that the client may be registered for, the preferred one first.
	methods []string
	known   atomic.Pointer[string]
	// searching serializes the requests while the method is not known.
	searching sync.Mutex
}

// NewAuthentication returns the authentication of a client at the issuer with the metadata.
func NewAuthentication(credentials Credentials, issuer *oauth.Metadata) *Authentication {
	a := &Authentication{Credentials: credentials, methods: oauth.SecretMethods(issuer.TokenEndpointAuthMethods)}
	if credentials.Method != "" {
		a.methods = []string{credentials.Method}
	}
	if len(a.methods) == 1 {
		a.known.Store(&a.methods[0])
	}
	return a
}

// Outcome is what the response to a request says about the client's authentication.
type Outcome int

// The outcomes.
const (
	// Undecided is that of a request without a response of the issuer.
	Undecided Outcome = iota
	Accepted
	Refused
)

// Authenticate calls send with the client's method and returns its result. If the method is not known and the issuer
// refuses the preferred one, it calls send once more, with the other. A refused authentication counts against the limits
// of the issuer, so that this is done once for a client, one request at a time: a wrong secret counts as two failures.
func Authenticate[T any](a *Authentication, send func(method string) (T, Outcome)) T {
	if known := a.known.Load(); known != nil {
		result, _ := send(*known)
		return result
	}
	a.searching.Lock()
	defer a.searching.Unlock()
	if known := a.known.Load(); known != nil { // by the request that held the lock
		result, _ := send(*known)
		return result
	}
	first, decision := send(a.methods[0])
	if decision != Refused {
		if decision == Accepted {
			a.known.Store(&a.methods[0])
		}
		return first
	}
	second, decision := send(a.methods[1])
	switch decision {
	case Accepted:
		a.known.Store(&a.methods[1])
	case Refused:
		a.known.Store(&a.methods[0]) // the secret is wrong, not the method
		return first
	}
	return second
}

// outcome returns what the error of a call says about the client's authentication.
func outcome(err error) Outcome {
	if err == nil {
		return Accepted
	}
	if call, ok := errors.AsType[*CallError](err); ok {
		return OutcomeOf(call.Code)
	}
	return Undecided
}

// OutcomeOf returns what the code of a call says about the client's authentication. At the limit of its failed
// authentications a client gets RESOURCE_EXHAUSTED for a wrong method, although the other would be accepted; further
// failures are not counted then.
func OutcomeOf(code codes.Code) Outcome {
	switch code {
	case codes.OK:
		return Accepted
	case codes.Unauthenticated, codes.ResourceExhausted:
		return Refused
	}
	return Undecided
}
