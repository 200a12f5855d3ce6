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
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/trust"
)

// evidence is a token or a certificate that an issuer has issued. Nothing in it has been verified.
type evidence struct {
	// message and claims are those of a token, chain is a certificate with those that signed it. One of them is set.
	message *jws.Message
	claims  jws.Claims
	chain   []*x509.Certificate
}

const (
	// maxEvidence is the maximum size of a token or of a certificate with its chain, in bytes.
	maxEvidence = 64 << 10
	// maxToken is the maximum size of a token that an issuer accepts, in bytes.
	maxToken = 8 << 10
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
	if len(text) > maxToken {
		return nil, cli.WithExit(cli.ExitInvalid, fmt.Errorf("the token has more than %d bytes", maxToken))
	}
	message, err := jws.Parse(text)
	if err != nil {
		return nil, cli.WithExit(cli.ExitInvalid, fmt.Errorf("not a signed JWT: %w", err))
	}
	claims, err := jws.ParseClaims(message.Payload)
	if err != nil {
		return nil, cli.WithExit(cli.ExitInvalid, fmt.Errorf("not a signed JWT: %w", err))
	}
	return &evidence{message: message, claims: claims}, nil
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

// identity returns the identity that the evidence is of. A token whose subject is a SPIFFE ID of a trusted domain is a
// JWT-SVID, whatever its "iss" is.
func (e *evidence) identity(table *trust.Table) (trust.Identity, error) {
	if e.message == nil {
		id, err := x509svid.IDFromCert(e.chain[0])
		if err != nil {
			return trust.Identity{}, cli.WithExit(cli.ExitInvalid, fmt.Errorf("the certificate has no SPIFFE ID: %w", err))
		}
		return trust.Identity{SPIFFEID: id.String()}, nil
	}
	subject, err := e.claims.Text("sub")
	if err != nil {
		return trust.Identity{}, cli.WithExit(cli.ExitInvalid, err)
	}
	if svid := (trust.Identity{SPIFFEID: subject}); strings.HasPrefix(subject, "spiffe://") {
		if _, trusted := table.Issuer(svid.IssuerID()); trusted {
			return svid, nil
		}
	}
	issuer, err := e.claims.Text("iss")
	if err != nil {
		return trust.Identity{}, cli.WithExit(cli.ExitInvalid, err)
	}
	return trust.Identity{Issuer: issuer, Subject: subject, Claim: e.claims.Scalar}, nil
}
