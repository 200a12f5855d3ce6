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
	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// SecretVariable has the client's secret. There is no flag for it: others could read the command line.
	SecretVariable = "GRANTOR_CLIENT_SECRET"
	SecretWays     = "give the client's secret in " + SecretVariable + " or in the file of --client-secret-file, or run the command on a terminal, which is asked for it"
)

// LocalIssuer is the issuer of serve --dev.
const LocalIssuer = "http://localhost:8080"

// Connection says which issuer a command talks to, and as which client. Each value comes from its flag, else from the
// profile that a flag names, else from the environment, else from the file of --config where the command has one, else from
// the profile that the environment names.
type Connection struct {
	Issuer      string
	ClientID    string
	secretFile  string
	ProfileName string
	profile     *profile // nil where none is named
	// chosen says that the command line names the profile, so that it comes before the environment, which may be about
	// another issuer.
	chosen bool
}

// Declare adds the settings to flags.
func (c *Connection) Declare(flags *pflag.FlagSet, issuer string) {
	flags.StringVar(&c.Issuer, "issuer", issuer, "`URL` of the issuer")
	flags.StringVar(&c.ClientID, "client-id", "", "`id` of the client that asks")
	flags.StringVar(&c.secretFile, "client-secret-file", "", "`file` with the client's secret; without it "+SecretVariable+" has the secret, or the terminal is asked for it")
	flags.StringVar(&c.ProfileName, "profile", "", "`name` of a profile with issuer, client and secret; see grantor help profiles")
}

// Fill takes from the profile what was given nowhere else.
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
	if c.chosen && c.ownSecret() && !settings.OnCommandLine(flags, "client-secret-file") {
		c.secretFile = ""
	}
	return nil
}

// Credentials checks the settings and gives the client's secret. No error quotes it.
func (c *Connection) Credentials(cmd *cobra.Command) (string, error) {
	if c.ClientID == "" {
		return "", cli.SettingError("client-id", errors.New("is required: the client that asks"))
	}
	if err := oauth.SecureURL(c.Issuer); err != nil {
		return "", cli.SettingError("issuer", err)
	}
	secret, from, err := c.secret(cmd)
	switch {
	case err != nil:
		return "", err
	case secret == "":
		return "", cli.SettingError(from, errors.New("is empty"))
	case len(secret) > oauth.MaxSecret:
		return "", cli.SettingError(from, fmt.Errorf("has more than %d bytes", oauth.MaxSecret))
	}
	return secret, nil
}

// secret gives the client's secret and where it is from.
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

// ownSecret reports whether the profile has the secret of the client at the issuer.
func (c *Connection) ownSecret() bool {
	return c.profile.hasSecret() && c.profile.isFor(c.Issuer, c.ClientID)
}

// noSecret says how to give a secret. That of a profile is kept from any other issuer, which would learn it.
func (c *Connection) noSecret() error {
	if c.profile.hasSecret() {
		return fmt.Errorf("the secret of the profile %s is not for %s at %s; %s", c.ProfileName, cli.Printable(c.ClientID), cli.Printable(c.Issuer), SecretWays)
	}
	return errors.New(SecretWays)
}

// ReadSecret reads a file that has a secret, and perhaps the end of a line after it.
func ReadSecret(path string) (string, error) {
	content, err := os.ReadFile(path)
	return strings.TrimRight(string(content), "\r\n"), err
}
