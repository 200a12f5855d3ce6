package trustcheck

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// evidence is a token or a certificate that an issuer has issued. Nothing in it has been verified.
type evidence struct {
	// message is a token, chain a certificate with those that signed it. One of them is set.
	message *jws.Message
	chain   []*x509.Certificate
	// token is what the message says, set by identity.
	token *trust.Token
}

const (
	// maxEvidence is the maximum size of a token or of a certificate with its chain, in bytes.
	maxEvidence = 64 << 10
	// maxChain is the maximum number of certificates.
	maxChain = 10
)

// readEvidence reads what the command is about. No error quotes it.
func readEvidence(cmd *cobra.Command, args []string) (*evidence, error) {
	data, err := readArgument(cmd, args)
	if err != nil {
		return nil, err
	}
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return nil, cli.UsageError(errors.New("no token and no certificate: give it on standard input or as @FILE"))
	case strings.Contains(text, "-----BEGIN"):
		return parseChain(data)
	}
	return parseToken(text)
}

func readArgument(cmd *cobra.Command, args []string) ([]byte, error) {
	switch {
	case len(args) == 0 || args[0] == "-":
		return cli.ReadAll(cmd.InOrStdin(), "standard input", maxEvidence)
	case strings.HasPrefix(args[0], "@"):
		data, err := cli.ReadFile(args[0][1:], maxEvidence)
		return data, cli.UsageError(err)
	case strings.Count(args[0], ".") != 2:
		return nil, cli.UsageError(errors.New("the argument is no token; a file is written as @FILE"))
	}
	return []byte(args[0]), nil
}

func parseToken(text string) (*evidence, error) {
	if len(text) > clientassertion.MaxSize {
		return nil, cli.WithExit(cli.ExitInvalid, fmt.Errorf("the token has more than %d bytes", clientassertion.MaxSize))
	}
	message, err := jws.Parse(text)
	if err != nil {
		return nil, cli.WithExit(cli.ExitInvalid, fmt.Errorf("not a signed JWT: %w", err))
	}
	return &evidence{message: message}, nil
}

func parseChain(data []byte) (*evidence, error) {
	sent := &evidence{}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type != "CERTIFICATE":
			continue // a file often has the private key too, which is of no use here
		case len(sent.chain) == maxChain:
			return nil, cli.WithExit(cli.ExitInvalid, fmt.Errorf("there are more than %d certificates", maxChain))
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, cli.WithExit(cli.ExitInvalid, errors.New("the PEM has no valid certificate"))
		}
		sent.chain = append(sent.chain, certificate)
	}
	if len(sent.chain) == 0 {
		return nil, cli.WithExit(cli.ExitInvalid, errors.New("the PEM has no certificate"))
	}
	return sent, nil
}

// kind returns what the evidence is.
func (e *evidence) kind() string {
	if e.message != nil {
		return "token"
	}
	return "certificate"
}

// method returns the method by which the evidence authenticates a client. identity has been called.
func (e *evidence) method() string {
	switch {
	case e.token == nil:
		return oauth.SPIFFEX509
	case e.token.SVID():
		return oauth.SPIFFEJWT
	}
	return oauth.FederatedJWT
}

// identity returns the identity that the evidence is of. A token whose subject is a SPIFFE ID of a trusted domain is a
// JWT-SVID, whatever its "iss" is: the request that sends it says so.
func (e *evidence) identity(table *trust.Table) (_ trust.Identity, err error) {
	if e.message == nil {
		id, err := x509svid.IDFromCert(e.chain[0])
		if err != nil {
			return trust.Identity{}, cli.WithExit(cli.ExitInvalid, fmt.Errorf("the certificate has no SPIFFE ID: %w", err))
		}
		return trust.Identity{SPIFFEID: id.String()}, nil
	}
	if e.token, err = trust.ReadToken(e.message, e.svid(table)); err != nil {
		return trust.Identity{}, cli.WithExit(cli.ExitInvalid, fmt.Errorf("not a token of an issuer: %w", err))
	}
	return e.token.Identity, nil
}

// svid reports whether the subject of the token is a SPIFFE ID of a trusted domain.
func (e *evidence) svid(table *trust.Table) bool {
	claims, err := jws.ParseClaims(e.message.Payload)
	if err != nil {
		return false
	}
	subject, _ := claims.Text("sub")
	id := trust.Identity{SPIFFEID: subject}
	_, trusted := table.Issuer(id.IssuerID())
	return strings.HasPrefix(subject, "spiffe://") && trusted
}
