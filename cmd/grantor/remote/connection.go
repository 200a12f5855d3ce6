package remote

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// SecretVariable is the environment variable with the client's secret. There is no flag for it, because other users
	// can read the command line.
	SecretVariable = "GRANTOR_CLIENT_SECRET"
	// SecretWays says how to give the secret.
	SecretWays = "give the client's secret in " + SecretVariable + " or in the file of --client-secret-file, or run the command on a terminal, which prompts for it"
)

// LocalIssuer is the issuer of grantor serve --dev.
const LocalIssuer = "http://localhost:8080"

// Connection is the issuer that a command talks to, and the client that it authenticates as. Each value comes from its
// flag, else from the profile that a flag names, else from the environment, else from the file of --config if the
// command has one, else from the profile that the environment names.
type Connection struct {
	Issuer     string
	ClientID   string
	secretFile string
	// authMethod is the client authentication method, or empty if the client finds out.
	authMethod  string
	ProfileName string
	// profile is nil if none is named.
	profile *profile
	// chosen reports whether the command line names the profile. Such a profile takes precedence over the environment,
	// which may be about another issuer.
	chosen bool
}

// Declare declares the settings as flags. issuer is the default issuer.
func (c *Connection) Declare(flags *pflag.FlagSet, issuer string) {
	flags.StringVar(&c.Issuer, "issuer", issuer, "`URL` of the issuer")
	flags.StringVar(&c.ClientID, "client-id", "", "`id` of the client")
	flags.StringVar(&c.secretFile, "client-secret-file", "", "`file` with the client's secret; without it "+SecretVariable+" has the secret, or the terminal prompts for it")
	flags.StringVar(&c.authMethod, "client-auth-method", "", "`method` by which the client authenticates: client_secret_basic or client_secret_post; default: the one that the issuer accepts")
	flags.StringVar(&c.ProfileName, "profile", "", "`name` of a profile with issuer, client and secret; see grantor help profiles")
}

// Fill takes from the profile what has no value from a source of higher precedence.
func (c *Connection) Fill(flags *pflag.FlagSet) (err error) {
	if c.ProfileName == "" {
		return nil
	}
	if c.profile, err = readProfile(c.ProfileName); err != nil {
		return cli.SettingError("profile", err)
	}
	c.chosen = settings.OnCommandLine(flags, "profile")
	given := func(name string) bool { return settings.OnCommandLine(flags, name) || flags.Changed(name) && !c.chosen }
	if !given("issuer") {
		c.Issuer = c.profile.issuer
	}
	if !given("client-id") && (c.profile.clientID != "" || !flags.Changed("client-id")) {
		c.ClientID = c.profile.clientID
	}
	if !given("client-auth-method") && c.profile.isFor(c.Issuer, c.ClientID) {
		c.authMethod = c.profile.authMethod
	}
	if c.chosen && c.ownSecret() && !settings.OnCommandLine(flags, "client-secret-file") {
		c.secretFile = ""
	}
	return nil
}

// Credentials validates the settings and returns what the client authenticates with. No error quotes its secret.
func (c *Connection) Credentials(cmd *cobra.Command) (Credentials, error) {
	if c.ClientID == "" {
		return Credentials{}, cli.SettingError("client-id", errors.New("is required: the client to authenticate as"))
	}
	if err := CheckIssuer(c.Issuer); err != nil {
		return Credentials{}, err
	}
	method, err := c.AuthMethod()
	if err != nil {
		return Credentials{}, err
	}
	secret, from, err := c.secret(cmd)
	switch {
	case err != nil:
		return Credentials{}, err
	case secret == "":
		return Credentials{}, cli.SettingError(from, errors.New("is empty"))
	case len(secret) > oauth.MaxSecret:
		return Credentials{}, cli.SettingError(from, fmt.Errorf("has more than %d bytes", oauth.MaxSecret))
	}
	return Credentials{c.ClientID, secret, method}, nil
}

// AuthMethod validates the client authentication method and returns it. It is empty if none is set.
func (c *Connection) AuthMethod() (string, error) {
	if c.authMethod == "" {
		return "", nil
	}
	if err := cli.OneOf(c.authMethod, attach.ClientSecretBasic, attach.ClientSecretPost); err != nil {
		return "", cli.SettingError("client-auth-method", err)
	}
	return c.authMethod, nil
}

// secret returns the client's secret and its source.
func (c *Connection) secret(cmd *cobra.Command) (secret, from string, err error) {
	fromVariable := os.Getenv(SecretVariable)
	if c.chosen && c.ownSecret() {
		fromVariable = ""
	}
	switch {
	case fromVariable != "" && c.secretFile != "":
		return "", "", cli.SettingError(SecretVariable+", client-secret-file", errors.New("both are set, by flag or environment; give one"))
	case c.secretFile != "":
		secret, err = ReadSecret(c.secretFile)
		if err != nil {
			err = cli.SettingError("client-secret-file", err)
		}
		return secret, "client-secret-file", err
	case fromVariable != "":
		return fromVariable, SecretVariable, nil
	case c.ownSecret():
		secret, err = c.profile.readSecret()
		return secret, "profile " + c.ProfileName, err
	}
	terminal := cli.Terminal(cmd.InOrStdin())
	if terminal == nil {
		return "", "", cli.UsageError(c.noSecret())
	}
	secret, err = cli.AskSecret(cmd.Context(), terminal, cmd.ErrOrStderr(), "Secret of "+cli.Printable(c.ClientID)+": ")
	return secret, "the client's secret", err
}

// ownSecret reports whether the profile has the secret of this client at this issuer.
func (c *Connection) ownSecret() bool {
	return c.profile.hasSecret() && c.profile.isFor(c.Issuer, c.ClientID)
}

// noSecret says how to give a secret. The secret of a profile is not sent to any other issuer, which would learn it.
func (c *Connection) noSecret() error {
	if c.profile.hasSecret() {
		return fmt.Errorf("the secret of the profile %s is not for %s at %s; %s", c.ProfileName, cli.Printable(c.ClientID), cli.Printable(oauth.RedactURL(c.Issuer)), SecretWays)
	}
	return errors.New(SecretWays)
}

// ReadSecret reads a file with a secret, which a line break may follow.
func ReadSecret(path string) (string, error) {
	content, err := cli.ReadFile(path, cli.MaxSmallFile)
	return strings.TrimRight(string(content), "\r\n"), err
}
