package clientauth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
)

// certificateAlone reports whether the certificate of the connection is what proves the client: there is one, and the
// request has the ID of a client and nothing else (RFC 8705 §2). The certificate is not evidence beside a secret or an
// assertion: a connection may have one for other reasons, such as a mesh.
func (e *Evidence) certificateAlone() bool {
	_, basic := e.basic()
	return len(e.Certificates) > 0 && e.ClientID != "" && e.ClientSecret == "" && !basic
}

// authenticateByCertificate returns the client whose certificate the connection has. The chain is verified before the
// client is known, so that the answer takes as long for an unknown one.
func (a *Authenticator) authenticateByCertificate(ctx context.Context, e Evidence) (Authentication, error) {
	p := proof{credentials{method: oauth.TLSClientAuth, id: e.ClientID}, e.Source, a.config.Now()}
	if err := checkSizes(p.id, ""); err != nil {
		return Authentication{Method: p.method}, err
	}
	if result, tried, err := a.authenticateBySVID(ctx, e); tried {
		return result, err
	}
	var authorities []*x509.CertPool
	if a.config.Authorities != nil {
		authorities = a.config.Authorities()
	}
	unverified := certificate.Verify(e.Certificates, p.at, authorities...)
	client, known, err := a.find(ctx, p.id)
	if err != nil {
		return Authentication{Method: p.method}, err
	}
	identity, cause := matchName(client, e.Certificates[0], unverified)
	if (cause != nil || !client.Allows(oauth.TLSClientAuth)) && a.mayHaveKey(client) {
		key, err := a.keys.findPublic(ctx, client, e.Certificates[0].PublicKey)
		if err != nil && !errors.Is(err, jwks.ErrUnknownKey) {
			return Authentication{Method: oauth.SelfSignedTLSClientAuth}, unreachableKeys(client, err)
		}
		if err == nil || client.Certificate == (certificate.Subject{}) {
			p.method, identity, cause = oauth.SelfSignedTLSClientAuth, key.ID(), err
		}
		if err == nil {
			// Who signed the certificate does not matter, since its key alone counts (RFC 8705 §2.2); but a client that replaces
			// its certificate may leave the key as it is.
			cause = certificate.CheckValidity(e.Certificates[0], p.at)
		}
	}
	switch unusable := a.checkUsable(p, client); {
	case !known:
		return Authentication{Method: p.method}, a.fail(ctx, p, refused(oauth.UnknownClient, "unknown client"))
	case cause != nil:
		return Authentication{Method: p.method}, a.fail(ctx, p, refused(oauth.WrongCertificate, "the certificate for client %q: %w", p.id, cause))
	case unusable != nil:
		return Authentication{Method: p.method}, a.fail(ctx, p, unusable)
	}
	return Authentication{Client: client, Method: p.method, Identity: identity}, nil
}

// matchName returns the name by which the certificate is the client's (RFC 8705 §2.1), or why it is not. unverified is the
// result of verifying its chain.
func matchName(client *registry.Client, leaf *x509.Certificate, unverified error) (name string, _ error) {
	name = client.Certificate.String()
	switch {
	case name == "":
		return "", errors.New("the client has no name of a certificate (tls_client_auth_...)")
	case unverified != nil:
		return "", unverified
	case !client.Certificate.Match(leaf):
		return "", fmt.Errorf("it does not have the name %q, or has several URIs", name)
	}
	return name, nil
}

// mayHaveKey reports whether a certificate with one of the client's keys can authenticate the client.
func (*Authenticator) mayHaveKey(client *registry.Client) bool {
	return client.Allows(oauth.SelfSignedTLSClientAuth) && (client.Keys.String() != "" || client.KeysURI != "")
}
