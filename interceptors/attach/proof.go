package attach

import (
	"context"
	"crypto/tls"
	"errors"

	"github.com/grantorhq/grantor/service/clientassertion"
)

// Names of the methods without a secret, inside this package.
const (
	byAssertion   = "assertion"
	byCertificate = "certificate"
)

// proof is what a client without a secret authenticates with: an assertion or a certificate.
type proof struct {
	// kind names the proof in errors.
	kind string
	// needsID reports that the client must have an ID. Of other proofs the issuer knows which client they are for.
	needsID bool
	// assertion returns the function that returns an assertion for each request. It may record a mistake.
	assertion func(c *config, issuer string) secret
	// certificate returns the client's present certificate.
	certificate func(ctx context.Context) (*tls.Certificate, error)
}

func withProof(p proof) Option {
	return func(c *config) { c.proofs = append(c.proofs, p) }
}

// prove checks that the client has one kind of evidence, and returns its proof; nil for a client with a secret.
func (c *config) prove(issuer string) *proof {
	if len(c.proofs) == 0 {
		return nil
	}
	p := &c.proofs[0]
	switch {
	case len(c.proofs) > 1:
		c.failf("the client has %s and %s; set one", p.kind, c.proofs[1].kind)
	case len(c.secrets) > 0:
		c.failf("the client has %s and a secret; set one", p.kind)
	case c.method != "":
		c.failf("AuthMethod: %s is for a secret, and the client has %s", c.method, p.kind)
	}
	if p.assertion != nil {
		c.assertion = p.assertion(c, issuer)
	}
	if c.assertionType == "" {
		c.assertionType = clientassertion.Type
	}
	c.certified = p.certificate != nil
	return p
}

// TokenFile authenticates the client with the token of another issuer, such as that of a Kubernetes service account, of a
// CI job or of a cloud, instead of a secret (RFC 7521 §4.2, RFC 7523 §2.2). The token is a JWT of at most 8 KiB in a file;
// white space around it is removed. The file is read for each token request, so that a token that is replaced there is used
// from the next request on, whether it is rewritten, renamed into place, or behind a link that changes, as those of
// Kubernetes are.
//
// The client ID may be empty. The issuer then derives the client from the token.
//
// While the file cannot be read or has no JWT, as it may be while it is being replaced, the token that was read last is
// sent. If there is none, the [*Error] names the file and never its content; its status is UNAVAILABLE, because the file
// may be mounted or written later.
func TokenFile(path string) Option {
	return withProof(proof{kind: "a token in a file", assertion: func(*config, string) secret {
		last := "" // used only by the one read in flight
		return interruptible("the token of the client", func(context.Context) (string, error) {
			read, err := clientassertion.ReadToken(path)
			if err == nil {
				last = read
			}
			if last != "" {
				return last, nil
			}
			return "", err
		})
	}})
}

// KubernetesTokenPath is the file that [KubernetesToken] reads.
const KubernetesTokenPath = "/var/run/secrets/grantor/token" //nolint:gosec // a path, not a token

// KubernetesToken is [TokenFile] with the file [KubernetesTokenPath], for a pod with a projected service account token whose
// audience is the issuer:
//
//	spec:
//	  serviceAccountName: orders
//	  containers:
//	    - name: orders
//	      volumeMounts:
//	        - {name: grantor-token, mountPath: /var/run/secrets/grantor, readOnly: true}
//	  volumes:
//	    - name: grantor-token
//	      projected:
//	        sources:
//	          - serviceAccountToken: {path: token, audience: "https://auth.example.com", expirationSeconds: 3600}
//
// The kubelet replaces the token when 80 % of its life have passed.
//
// The token that Kubernetes mounts by itself, /var/run/secrets/kubernetes.io/serviceaccount/token, is for the API server:
// a server that receives it can act there as the pod. It is never read, and an issuer refuses it for its audience.
func KubernetesToken() Option { return TokenFile(KubernetesTokenPath) }

// AssertionFunc authenticates the client with an assertion that a function returns, such as one that asks a CI system or a
// cloud for a token (RFC 7521 §4.2). The audience is the issuer that [ClientCredentials] is called with. The assertion has
// at most 8 KiB. The client ID may be empty, as for [TokenFile]. The client_assertion_type is that of a JWT (RFC 7523
// §2.2), unless [AssertionType] sets another one.
//
// The function is called for each token request and shares its 10 s, at the end of which ctx is done. A Source never calls
// it concurrently. Its error becomes the Cause of an [*Error] whose status is UNAVAILABLE. The error must not contain the
// assertion, because callers that need a token see it.
func AssertionFunc(assertion func(ctx context.Context, audience string) (string, error)) Option {
	return withProof(proof{kind: "an assertion of a function", assertion: func(_ *config, issuer string) secret {
		return interruptible("the client assertion", func(ctx context.Context) (string, error) {
			if assertion == nil {
				return "", errors.New("the function is nil")
			}
			made, err := assertion(ctx, issuer)
			if err != nil {
				return "", err
			}
			return made, clientassertion.Check(made, "the value returned by the function")
		})
	}})
}

// AssertionType sets the client_assertion_type of [AssertionFunc], an absolute URI (RFC 7521 §4.2).
func AssertionType(uri string) Option {
	return func(c *config) { c.assertionType = uri }
}
