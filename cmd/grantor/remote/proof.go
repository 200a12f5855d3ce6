package remote

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/oauth"
)

// proof says what a client authenticates with: a secret, a private key, or an identity that it has elsewhere. At most
// one of secret, secretFile, keyFile, tokenFile, certificateFile and spiffeSocket is set in a valid proof.
type proof struct {
	secret, secretFile string
	// keyFile has the private key in PEM. keyID is the "kid" under which it is registered, or empty.
	keyFile, keyID string
	// tokenFile has the token of another issuer.
	tokenFile string
	// certificateFile has a client certificate, and certificateKeyFile its private key.
	certificateFile, certificateKeyFile string
	// spiffeSocket is the address of the SPIFFE Workload API, and svid the kind of SVID, by default [svidJWT].
	spiffeSocket, svid string
}

// fileSetting is a setting of which a proof may have one.
type fileSetting struct {
	name, usage string
	value       *string
}

// files returns the settings that name what the client authenticates with.
func (p *proof) files() []fileSetting {
	return []fileSetting{
		{"client-secret-file", "`file` with the client's secret; without it " + SecretVariable + " has the secret, or the terminal prompts for it", &p.secretFile},
		{"private-key-file", "`file` with the client's private key in PEM, for a client that has a key registered instead of a secret", &p.keyFile},
		{"token-file", "`file` with a token of another issuer that the issuer trusts, such as that of a Kubernetes service account; the client's id is then optional", &p.tokenFile},
		{"client-certificate-file", "`file` with the client's certificate in PEM, and those that lead to its authority; with --client-certificate-key-file", &p.certificateFile},
		{"spiffe-socket", "`address` of the SPIFFE Workload API, such as unix:///run/spire/agent.sock, whose SVID authenticates the client; the client's id is then optional", &p.spiffeSocket},
	}
}

func (p *proof) declare(flags *pflag.FlagSet) {
	for _, file := range p.files() {
		flags.StringVar(file.value, file.name, "", file.usage)
	}
	flags.StringVar(&p.keyID, "key-id", "", "`kid` under which the key of --private-key-file is registered; default: its RFC 7638 thumbprint")
	flags.StringVar(&p.certificateKeyFile, "client-certificate-key-file", "", "`file` with the private key of --client-certificate-file in PEM")
	flags.StringVar(&p.svid, "spiffe-svid", "", "`kind` of the SVID of --spiffe-socket: jwt or x509; default: jwt")
}

// The kinds of SVIDs.
const svidJWT, svidX509 = "jwt", "x509"

// keepOnly removes the values of the settings that keep does not report, by their names.
func (p *proof) keepOnly(keep func(name string) bool) {
	for _, file := range append(p.files(), fileSetting{name: "key-id", value: &p.keyID},
		fileSetting{name: "client-certificate-key-file", value: &p.certificateKeyFile}, fileSetting{name: "spiffe-svid", value: &p.svid}) {
		if !keep(file.name) {
			*file.value = ""
		}
	}
}

// kind names what the client of a profile authenticates with; it is empty if there is nothing.
func (p *proof) kind() string {
	switch {
	case p.keyFile != "":
		return "private key"
	case p.secret != "" || p.secretFile != "":
		return "secret"
	case p.tokenFile != "":
		return "token"
	case p.certificateFile != "":
		return "certificate"
	case p.spiffeSocket != "":
		return "SVID"
	}
	return ""
}

// secretless reports whether the client authenticates without a secret.
func (p *proof) secretless() bool { return p.kind() != "" && p.kind() != "secret" }

// findProof returns what the client authenticates with: what the settings and the environment have, else what the profile
// has. There is none if the secret has to be asked for.
func (c *Connection) findProof() (proof, error) {
	found := c.proof
	var given []string
	if secret := os.Getenv(SecretVariable); secret != "" && (!c.chosen || !c.ownProof()) {
		found.secret, given = secret, []string{SecretVariable}
	}
	for _, file := range found.files() {
		if *file.value != "" {
			given = append(given, file.name)
		}
	}
	switch {
	case len(given) > 1:
		return proof{}, cli.SettingError(given[0]+", "+given[1], errors.New("both are set, by flag or environment; give one"))
	case len(given) == 0 && c.ownProof():
		found = c.profile.proof
		found.keyID, found.svid = cmp.Or(c.proof.keyID, found.keyID), cmp.Or(c.proof.svid, found.svid)
	}
	if found.keyID != "" && found.keyFile == "" {
		return proof{}, cli.SettingError("key-id", errors.New("is set without private-key-file"))
	}
	if found.svid != "" && found.spiffeSocket == "" {
		return proof{}, cli.SettingError("spiffe-svid", errors.New("is set without spiffe-socket"))
	}
	if (found.certificateFile == "") != (found.certificateKeyFile == "") {
		return proof{}, cli.SettingError("client-certificate-file, client-certificate-key-file", errors.New("one is set without the other"))
	}
	return found, nil
}

// withKey returns the credentials of a client with a private key.
func (c *Connection) withKey(given proof) (Credentials, error) {
	if c.authMethod != "" {
		return Credentials{}, cli.SettingError("client-auth-method", errors.New("is for a client with a secret, and a private key is set"))
	}
	private, err := clientassertion.ReadKey(given.keyFile)
	if err == nil {
		_, err = clientassertion.Key(private.Public()) // rejects a key that is too short or of another type
	}
	if err != nil {
		return Credentials{}, cli.SettingError(c.origin("private-key-file", c.proof.keyFile), err)
	}
	return keyCredentials(c.Issuer, c.ClientID, private, given.keyID), nil
}

// withSecret returns the credentials of a client with a secret, for which it asks if there is none.
func (c *Connection) withSecret(cmd *cobra.Command, given proof, method string) (Credentials, error) {
	secret, from, err := c.readSecret(cmd, given)
	switch {
	case err != nil:
		return Credentials{}, err
	case secret == "":
		return Credentials{}, cli.SettingError(from, errors.New("is empty"))
	case len(secret) > oauth.MaxSecret:
		return Credentials{}, cli.SettingError(from, fmt.Errorf("has more than %d bytes", oauth.MaxSecret))
	}
	return Credentials{ID: c.ClientID, Secret: secret, Method: method}, nil
}

// readSecret returns the client's secret and its source.
func (c *Connection) readSecret(cmd *cobra.Command, given proof) (secret, from string, err error) {
	switch {
	case given.secretFile != "":
		from = c.origin("client-secret-file", c.proof.secretFile)
		if secret, err = ReadSecret(given.secretFile); err != nil {
			err = cli.SettingError(from, err)
		}
		return secret, from, err
	case given.secret != "":
		return given.secret, SecretVariable, nil
	}
	terminal := cli.Terminal(cmd.InOrStdin())
	if terminal == nil {
		return "", "", cli.UsageError(c.noProof())
	}
	secret, err = cli.AskSecret(cmd.Context(), terminal, cmd.ErrOrStderr(), "Secret of "+cli.Printable(c.ClientID)+": ")
	return secret, "the client's secret", err
}

// origin returns where a value is from: the setting, if that has one, else the profile.
func (c *Connection) origin(setting, value string) string {
	if value != "" {
		return setting
	}
	return "profile " + c.ProfileName
}

// noProof returns the error of a command that has no secret and no other proof. That of a profile is not used for any
// other issuer, which would learn a secret.
func (c *Connection) noProof() error {
	if c.profile != nil && c.profile.kind() != "" {
		return fmt.Errorf("the %s of the profile %s is not for %s at %s; %s", c.profile.kind(), c.ProfileName, cli.Printable(c.ClientID), cli.Printable(oauth.RedactURL(c.Issuer)), SecretWays)
	}
	return errors.New(SecretWays)
}

// ReadSecret reads a file with a secret, which a line break may follow.
func ReadSecret(path string) (string, error) {
	content, err := cli.ReadFile(path, cli.MaxSmallFile)
	return strings.TrimRight(string(content), "\r\n"), err
}
