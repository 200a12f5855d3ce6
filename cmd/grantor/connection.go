package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/service/oauth"
)

const (
	// secretVariable has the client's secret. There is no flag for it: others could read the command line.
	secretVariable = "GRANTOR_CLIENT_SECRET"
	secretWays     = "give the client's secret in " + secretVariable + " or in the file of --client-secret-file, or run the command on a terminal, which is asked for it"
)

// localIssuer is the issuer of serve --dev.
const localIssuer = "http://localhost:8080"

// connection says which issuer a command talks to, and as which client. Each value comes from its flag, else from the
// profile that a flag names, else from the environment, else from the file of --config where the command has one, else from
// the profile that the environment names.
type connection struct {
	issuer      string
	clientID    string
	secretFile  string
	profileName string
	profile     *profile // nil where none is named
	// chosen says that the command line names the profile, so that it comes before the environment, which may be about
	// another issuer.
	chosen bool
}

// declare adds the settings to flags.
func (c *connection) declare(flags *pflag.FlagSet, issuer string) {
	flags.StringVar(&c.issuer, "issuer", issuer, "`URL` of the issuer")
	flags.StringVar(&c.clientID, "client-id", "", "`id` of the client that asks")
	flags.StringVar(&c.secretFile, "client-secret-file", "", "`file` with the client's secret; without it "+secretVariable+" has the secret, or the terminal is asked for it")
	flags.StringVar(&c.profileName, "profile", "", "`name` of a profile with issuer, client and secret; see grantor help profiles")
}

// fill takes from the profile what was given nowhere else.
func (c *connection) fill(flags *pflag.FlagSet) (err error) {
	if c.profileName == "" {
		return nil
	}
	if c.profile, err = readProfile(c.profileName); err != nil {
		return settingError("profile", err)
	}
	c.chosen = onCommandLine(flags, "profile")
	given := func(name string) bool { return onCommandLine(flags, name) || flags.Changed(name) && !c.chosen }
	if !given("issuer") {
		c.issuer = c.profile.issuer
	}
	if !given("client-id") && (c.profile.clientID != "" || !flags.Changed("client-id")) {
		c.clientID = c.profile.clientID
	}
	if c.chosen && c.ownSecret() && !onCommandLine(flags, "client-secret-file") {
		c.secretFile = ""
	}
	return nil
}

// credentials checks the settings and gives the client's secret. No error quotes it.
func (c *connection) credentials(cmd *cobra.Command) (string, error) {
	if c.clientID == "" {
		return "", settingError("client-id", errors.New("is required: the client that asks"))
	}
	if err := oauth.SecureURL(c.issuer); err != nil {
		return "", settingError("issuer", err)
	}
	secret, from, err := c.secret(cmd)
	switch {
	case err != nil:
		return "", err
	case secret == "":
		return "", settingError(from, errors.New("is empty"))
	case len(secret) > oauth.MaxSecret:
		return "", settingError(from, fmt.Errorf("has more than %d bytes", oauth.MaxSecret))
	}
	return secret, nil
}

// secret gives the client's secret and where it is from.
func (c *connection) secret(cmd *cobra.Command) (secret, from string, err error) {
	fromVariable := os.Getenv(secretVariable)
	if c.chosen && c.ownSecret() {
		fromVariable = ""
	}
	switch {
	case fromVariable != "" && c.secretFile != "":
		return "", "", settingError(secretVariable+", client-secret-file", errors.New("both are set, by flag or environment; give one"))
	case c.secretFile != "":
		secret, err = readSecret(c.secretFile)
		if err != nil {
			err = settingError("client-secret-file", err)
		}
		return secret, "client-secret-file", err
	case fromVariable != "":
		return fromVariable, secretVariable, nil
	case c.ownSecret():
		secret, err = c.profile.readSecret()
		return secret, "profile " + c.profileName, err
	}
	terminal := terminalOf(cmd.InOrStdin())
	if terminal == nil {
		return "", "", usage(c.noSecret())
	}
	secret, err = ask(cmd.Context(), terminal, cmd.ErrOrStderr(), "Secret of "+visible(c.clientID)+": ")
	return secret, "the client's secret", err
}

// ownSecret reports whether the profile has the secret of the client at the issuer.
func (c *connection) ownSecret() bool {
	return c.profile.hasSecret() && c.profile.isFor(c.issuer, c.clientID)
}

// noSecret says how to give a secret. That of a profile is kept from any other issuer, which would learn it.
func (c *connection) noSecret() error {
	if c.profile.hasSecret() {
		return fmt.Errorf("the secret of the profile %s is not for %s at %s; %s", c.profileName, visible(c.clientID), visible(c.issuer), secretWays)
	}
	return errors.New(secretWays)
}

// readSecret reads a file that has a secret, and perhaps the end of a line after it.
func readSecret(path string) (string, error) {
	content, err := os.ReadFile(path)
	return strings.TrimRight(string(content), "\r\n"), err
}
