package remote

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/interceptors/attach"
)

const (
	// SecretVariable is the environment variable with the client's secret. There is no flag for it, because other users
	// can read the command line.
	SecretVariable = "GRANTOR_CLIENT_SECRET"
	// SecretWays says how to give the secret, or what to give instead.
	SecretWays = "give the client's secret in " + SecretVariable + " or in the file of --client-secret-file, or run the command on a terminal, which prompts for it; or give its private key in the file of --private-key-file, or one of --token-file, --client-certificate-file and --spiffe-socket"
)

// LocalIssuer is the issuer of grantor serve --dev.
const LocalIssuer = "http://localhost:8080"

// Connection is the issuer that a command talks to, and the client that it authenticates as. Each value comes from its
// flag, else from the profile that a flag names, else from the environment, else from the file of --config if the
// command has one, else from the profile that the environment names.
type Connection struct {
	Issuer   string
	ClientID string
	// proof is what flags, environment and file say; the profile has its own.
	proof proof
	// authMethod is the client authentication method, or empty if the client finds out.
	authMethod string
	// dpopKeyFile has the key to which the client's tokens are bound, or is empty. The profile may have another one.
	dpopKeyFile string
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
	c.proof.declare(flags)
	flags.StringVar(&c.authMethod, "client-auth-method", "", "`method` by which the client sends its secret: client_secret_basic or client_secret_post; default: the one that the issuer accepts")
	flags.StringVar(&c.dpopKeyFile, "dpop-key-file", "", dpopUsage)
	flags.StringVar(&c.ProfileName, "profile", "", "`name` of a profile with issuer, client and what authenticates it; see grantor help profiles")
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
	if !given("client-id") && (c.profile.clientID != "" || c.profile.federated() || !flags.Changed("client-id")) {
		c.ClientID = c.profile.clientID
	}
	if c.chosen && c.ownProof() {
		c.proof.keepOnly(func(name string) bool { return settings.OnCommandLine(flags, name) })
	}
	if !given("client-auth-method") && !c.proof.secretless() && c.profile.clientID != "" && c.profile.isFor(c.Issuer, c.ClientID) {
		c.authMethod = c.profile.authMethod
	}
	if !given("dpop-key-file") && c.profile.dpopKeyFile != "" && c.profile.isFor(c.Issuer, c.ClientID) {
		c.dpopKeyFile = ""
	}
	return nil
}

// Credentials validates the settings and returns what the client authenticates with, and the key that its tokens are
// bound to. No error quotes a secret or key.
func (c *Connection) Credentials(cmd *cobra.Command) (Credentials, error) {
	prover, err := c.Prover()
	if err != nil {
		return Credentials{}, err
	}
	found, err := c.authentication(cmd)
	found.DPoP = prover
	return found, err
}

// authentication validates the settings and returns what the client authenticates with.
func (c *Connection) authentication(cmd *cobra.Command) (Credentials, error) {
	given, err := c.findProof()
	if c.ClientID == "" && (err != nil || !given.federated()) {
		return Credentials{}, cli.SettingError("client-id", errors.New("is required: the client to authenticate as"))
	}
	if err := CheckIssuer(c.Issuer); err != nil {
		return Credentials{}, err
	}
	method, wrong := c.AuthMethod()
	switch {
	case wrong != nil:
		return Credentials{}, wrong
	case err != nil:
		return Credentials{}, err
	case given.keyFile != "":
		return c.withKey(given)
	case given.secretless():
		return c.withIdentity(cmd.Context(), given)
	}
	return c.withSecret(cmd, given, method)
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

// ownProof reports whether the profile has what authenticates this client at this issuer.
func (c *Connection) ownProof() bool {
	return c.profile != nil && c.profile.kind() != "" && c.profile.isFor(c.Issuer, c.ClientID)
}
