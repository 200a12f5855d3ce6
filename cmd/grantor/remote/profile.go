package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

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
}

// NewProfilesTopic returns the help topic on profiles.
func NewProfilesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "profiles",
		Short: "How to keep issuer, client and secret or key in a file",
		Long: `Commands that talk to an issuer need --issuer, --client-id and the client's secret or private key. Each comes from its
flag, else from the profile that --profile names, else from the environment (GRANTOR_ISSUER, GRANTOR_CLIENT_ID, and one of
GRANTOR_CLIENT_SECRET, GRANTOR_CLIENT_SECRET_FILE and GRANTOR_PRIVATE_KEY_FILE), else from the profile that GRANTOR_PROFILE
names. Profiles are in $XDG_CONFIG_HOME/grantor/profiles.yaml, by default ~/.config/grantor/profiles.yaml:

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
  local:
    issuer: http://localhost:8080

No other user may read the file: chmod 600 it. The secret or key of a profile is used only for the issuer of the profile,
and only for the client of the profile.

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
	err := doc.Fields(whole, func(key string, node *yaml.Node) (err error) {
		switch key {
		case "issuer":
			p.issuer, err = doc.Scalar(node)
		case "client_id":
			p.clientID, err = doc.Scalar(node)
		case "client_secret":
			p.secret, err = doc.Scalar(node)
		case "client_auth_method":
			p.authMethod, err = doc.Scalar(node)
		case "client_secret_file":
			p.secretFile, err = besideFile(doc, node)
		case "private_key_file":
			p.keyFile, err = besideFile(doc, node)
		case "key_id":
			p.keyID, err = doc.Scalar(node)
		default:
			err = doc.Errorf(node, "a profile has no field %q", key)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case p.issuer == "":
		return doc.Errorf(whole, "a profile needs its issuer")
	case p.secret != "" && p.secretFile != "":
		return doc.Errorf(whole, "give one of client_secret and client_secret_file")
	case p.keyFile != "" && p.secret+p.secretFile != "":
		return doc.Errorf(whole, "give the client's secret or private_key_file, not both")
	case p.keyID != "" && p.keyFile == "":
		return doc.Errorf(whole, "key_id is for a profile with private_key_file")
	case p.authMethod != "" && p.keyFile != "":
		return doc.Errorf(whole, "client_auth_method is for a profile with a secret")
	case p.authMethod != "" && p.clientID == "":
		return doc.Errorf(whole, "a profile with client_auth_method needs the client_id of the client that is registered for it")
	case p.kind() != "" && p.clientID == "":
		return doc.Errorf(whole, "a profile with a %s needs the client_id of the %[1]s", p.kind())
	}
	return nil
}

// besideFile returns a path in a field, which is relative to the directory of the file of profiles unless it is absolute.
func besideFile(doc *yamldoc.Document, node *yaml.Node) (string, error) {
	path, err := doc.Scalar(node)
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(doc.File), path)
	}
	return path, err
}

func (p *profile) isFor(issuer, clientID string) bool {
	return p.issuer == issuer && p.clientID == clientID
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
