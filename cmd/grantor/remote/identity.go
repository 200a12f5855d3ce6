package remote

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/interceptors/attach/spiffe"
	"github.com/grantorhq/grantor/service/clientassertion"
)

// federated reports whether the issuer can tell from the proof which client it is of.
func (p *proof) federated() bool { return p.tokenFile != "" || p.spiffeSocket != "" }

// withIdentity returns the credentials of a client that has an identity elsewhere: a token, a certificate or an SVID.
func (c *Connection) withIdentity(ctx context.Context, given proof) (Credentials, error) {
	if c.authMethod != "" {
		return Credentials{}, cli.SettingError("client-auth-method", errors.New("is for a client with a secret, and another proof is set"))
	}
	switch {
	case given.tokenFile != "":
		return c.withToken(given.tokenFile)
	case given.certificateFile != "":
		certificate, err := tls.LoadX509KeyPair(given.certificateFile, given.certificateKeyFile)
		if err != nil {
			return Credentials{}, cli.SettingError(c.origin("client-certificate-file, client-certificate-key-file", c.proof.certificateFile), err)
		}
		return withCertificate(c.ClientID, &certificate), nil
	}
	svid := cmp.Or(given.svid, svidJWT)
	if err := cli.OneOf(svid, svidJWT, svidX509); err != nil {
		return Credentials{}, cli.SettingError("spiffe-svid", err)
	}
	if err := workloadapi.ValidateAddress(given.spiffeSocket); err != nil {
		return Credentials{}, cli.SettingError(c.socketOrigin(), err)
	}
	if svid == svidX509 {
		return c.withX509SVID(ctx, given.spiffeSocket)
	}
	return c.withJWTSVID(ctx, given.spiffeSocket), nil
}

// socketOrigin returns where the address of the Workload API is from.
func (c *Connection) socketOrigin() string { return c.origin("spiffe-socket", c.proof.spiffeSocket) }

// withToken returns the credentials of a client with the token of another issuer.
func (c *Connection) withToken(path string) (Credentials, error) {
	if _, err := clientassertion.ReadToken(path); err != nil {
		return Credentials{}, cli.SettingError(c.origin("token-file", c.proof.tokenFile), err)
	}
	return Credentials{
		ID: c.ClientID, Method: byAssertion, Options: []attach.Option{attach.TokenFile(path)}, AssertionType: clientassertion.Type,
		Assertion: func() (string, error) { return clientassertion.ReadToken(path) },
	}, nil
}

// withCertificate returns the credentials of a client with a certificate.
func withCertificate(id string, certificate *tls.Certificate) Credentials {
	return Credentials{ID: id, Method: byCertificate, Certificate: certificate, Options: []attach.Option{attach.Certificate(*certificate)}}
}

// withJWTSVID returns the credentials of a client with JWT-SVIDs, of which each request has a new one.
func (c *Connection) withJWTSVID(ctx context.Context, address string) Credentials {
	return Credentials{
		ID: c.ClientID, Method: byAssertion, AssertionType: clientassertion.TypeSPIFFE,
		Options: []attach.Option{spiffe.JWT(ctx, spiffe.Socket(address))},
		Assertion: func() (string, error) {
			ctx, cancel := context.WithTimeout(ctx, Timeout)
			defer cancel()
			svid, err := workloadapi.FetchJWTSVID(ctx, jwtsvid.Params{Audience: c.Issuer, Subject: spiffeid.ID{}}, workloadapi.WithAddr(address))
			if err != nil {
				return "", cli.SettingError(c.socketOrigin(), err)
			}
			return svid.Marshal(), nil
		},
	}
}

// withX509SVID returns the credentials of a client with an X509-SVID. Without a client ID, the SPIFFE ID stands for it.
func (c *Connection) withX509SVID(ctx context.Context, address string) (Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	svid, err := workloadapi.FetchX509SVID(ctx, workloadapi.WithAddr(address))
	if err != nil {
		return Credentials{}, cli.SettingError(c.socketOrigin(), err)
	}
	certificate := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	id := c.ClientID
	if id == "" {
		id = svid.ID.String()
	}
	return withCertificate(id, certificate), nil
}

// Names of the methods without a secret. The issuer finds the method itself, so that they are not sent.
const (
	byAssertion   = "assertion"
	byCertificate = "certificate"
)
