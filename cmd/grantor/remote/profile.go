package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
)

// profile is an entry of the file of profiles.
type profile struct {
	issuer, clientID string
	// proof has files that are absolute, or relative to the working directory.
	proof
	// authMethod is the authentication method of the client, or empty.
	authMethod string
	// dpopKeyFile has the key to which the client's tokens are bound, or is empty.
	dpopKeyFile string
}

// NewProfilesTopic returns the help topic on profiles.
func NewProfilesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "profiles",
		Short: "How to keep issuer, client and what authenticates it in a file",
		Long: `Commands that talk to an issuer need --issuer, --client-id and what authenticates the client: its secret or private key, or
an identity that it has elsewhere. Each comes from its flag, else from the profile that --profile names, else from the
environment (GRANTOR_ISSUER, GRANTOR_CLIENT_ID, GRANTOR_DPOP_KEY_FILE, and one of GRANTOR_CLIENT_SECRET,
GRANTOR_CLIENT_SECRET_FILE, GRANTOR_PRIVATE_KEY_FILE, GRANTOR_TOKEN_FILE, GRANTOR_CLIENT_CERTIFICATE_FILE and
GRANTOR_SPIFFE_SOCKET), else from the profile that GRANTOR_PROFILE names. Profiles are in
$XDG_CONFIG_HOME/grantor/profiles.yaml, by default ~/.config/grantor/profiles.yaml:

  prod:
    issuer: https://auth.example.com
    client_id: administrator
    client_secret_file: prod.secret        # relative to this file; or client_secret: the secret itself
    client_auth_method: client_secret_post # optional; for a client that is registered for one method
  keyed:
    issuer: https://auth.example.com
    client_id: background-service
    private_key_file: background-service.pem # relative to this file; for a client with a key instead of a secret
    key_id: 2026-11                        # optional; the kid under which the key is registered
  certified:
    issuer: https://auth.example.com
    client_id: orders
    client_certificate_file: orders.pem    # relative to this file, as is the file with its private key
    client_certificate_key_file: orders.key
  pod:
    issuer: https://auth.example.com
    token_file: /var/run/secrets/grantor/token # a token of another issuer; client_id is optional
  workload:
    issuer: https://auth.example.com
    spiffe_socket: unix:///run/spire/agent.sock # client_id is optional
    spiffe_svid: x509                      # optional; jwt is the default
    dpop_key_file: dpop.pem                # optional, in any profile: the key to which the tokens are bound (RFC 9449)
  local:
    issuer: http://localhost:8080

No other user may read the file: chmod 600 it. What authenticates the client of a profile is used only for the issuer of the
profile, and only for its client; that of a profile without client_id is used for whichever client the issuer takes it for.

  grantor client list --profile prod
  GRANTOR_PROFILE=local grantor key list --client-id administrator`,
	}
}

// profilesPath returns the path of the file of profiles.
func profilesPath() (string, error) {
	dir := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // the XDG base directory specification ignores a relative path
		home, err := os.UserHomeDir()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "grantor", "profiles.yaml"), nil
}

// readProfile reads one profile. No error quotes a secret.
func readProfile(name string) (*profile, error) {
	path, err := profilesPath()
	if err != nil {
		return nil, err
	}
	doc, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	var found *profile
	err = doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		p := &profile{}
		if err := p.read(doc, node); err != nil {
			return err
		}
		if key == name {
			found = p
		}
		return nil
	})
	if err == nil && found == nil {
		err = fmt.Errorf("there is no profile %q in %s", name, path)
	}
	return found, err
}

// ProfileIssuer returns the issuer of a profile.
func ProfileIssuer(name string) (string, error) {
	p, err := readProfile(name)
	if err != nil {
		return "", err
	}
	return p.issuer, nil
}

func (p *profile) read(doc *yamldoc.Document, whole *yaml.Node) error {
	texts := map[string]*string{
		"issuer": &p.issuer, "client_id": &p.clientID, "client_secret": &p.secret, "client_auth_method": &p.authMethod,
		"key_id": &p.keyID, "spiffe_socket": &p.spiffeSocket, "spiffe_svid": &p.svid,
	}
	paths := map[string]*string{
		"client_secret_file": &p.secretFile, "private_key_file": &p.keyFile, "token_file": &p.tokenFile, "dpop_key_file": &p.dpopKeyFile,
		"client_certificate_file": &p.certificateFile, "client_certificate_key_file": &p.certificateKeyFile,
	}
	err := doc.Fields(whole, func(key string, node *yaml.Node) (err error) {
		if text := texts[key]; text != nil {
			*text, err = doc.Scalar(node)
			return err
		}
		if path := paths[key]; path != nil {
			*path, err = besideFile(doc, node)
			return err
		}
		return doc.Errorf(node, "a profile has no field %q", key)
	})
	if err != nil {
		return err
	}
	if problem := p.problem(); problem != "" {
		return doc.Errorf(whole, "%s", problem)
	}
	return nil
}

// problem says which fields are missing, or exclude each other; it is empty if the profile is valid.
func (p *profile) problem() string {
	given := p.given()
	switch {
	case p.issuer == "":
		return "a profile needs its issuer"
	case len(given) > 1:
		return "give one of " + given[0] + " and " + given[1]
	case p.keyID != "" && p.keyFile == "":
		return "key_id is for a profile with private_key_file"
	case p.svid != "" && p.spiffeSocket == "":
		return "spiffe_svid is for a profile with spiffe_socket"
	case p.svid != "" && cli.OneOf(p.svid, svidJWT, svidX509) != nil:
		return "spiffe_svid: " + cli.OneOf(p.svid, svidJWT, svidX509).Error()
	case (p.certificateFile == "") != (p.certificateKeyFile == ""):
		return "give both of client_certificate_file and client_certificate_key_file, or neither"
	case p.authMethod != "" && p.secretless():
		return "client_auth_method is for a profile with a secret"
	case p.authMethod != "" && p.clientID == "":
		return "a profile with client_auth_method needs the client_id of the client that is registered for it"
	case p.kind() != "" && p.clientID == "" && !p.federated():
		return fmt.Sprintf("a profile with a %s needs the client_id of the %[1]s", p.kind())
	}
	return ""
}

// given returns the names of the fields with what authenticates the client.
func (p *profile) given() (names []string) {
	if p.secret != "" {
		names = append(names, "client_secret")
	}
	for _, file := range p.files() {
		if *file.value != "" {
			names = append(names, strings.ReplaceAll(file.name, "-", "_"))
		}
	}
	return names
}

// besideFile returns a path in a field, which is relative to the directory of the file of profiles unless it is absolute.
func besideFile(doc *yamldoc.Document, node *yaml.Node) (string, error) {
	path, err := doc.Scalar(node)
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(doc.File), path)
	}
	return path, err
}

// isFor reports whether the profile is for a client at an issuer. One without a client is for any: it has no secret,
// key or certificate, but at most an identity, of which the issuer knows which client it is.
func (p *profile) isFor(issuer, clientID string) bool {
	return p.issuer == issuer && (p.clientID == "" || p.clientID == clientID)
}

// readPrivate reads a YAML file that may have secrets, and so must not be readable by other users.
func readPrivate(path string) (*yamldoc.Document, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	// Windows does not keep permissions in the mode.
	if others := info.Mode().Perm() & 0o077; others != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("other users can read %s, which may have secrets; run: chmod 600 '%s'", path, path)
	}
	data, err := cli.ReadAll(file, path, maxProfiles)
	if err != nil {
		return nil, err
	}
	return yamldoc.Parse(path, data)
}

// maxProfiles bounds the file of profiles, in bytes.
const maxProfiles = 1 << 20
