package admin

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/registrypb"
)

// keysField is the field of a client with its keys.
const keysField = "jwks"

// keySetFile is a flag that names a file with public keys; an empty name clears the field. It implements [pflag.Value].
type keySetFile struct {
	path string
	set  json.RawMessage
}

// String returns the path.
func (f *keySetFile) String() string { return f.path }

// Type returns the name of the flag's value where its usage has none.
func (f *keySetFile) Type() string { return "file" }

// Set reads the file: a JWK Set, or public keys in PEM. An error contains no part of it: it may be a private key that was
// named by mistake, which goes no further than this.
func (f *keySetFile) Set(path string) error {
	if f.path, f.set = path, nil; path == "" {
		return nil
	}
	content, err := cli.ReadFile(path, cli.MaxSmallFile)
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(content); block != nil {
		if content, err = keySetOfPEM(content); err != nil {
			return fmt.Errorf("%s %w", path, err)
		}
	}
	document, err := jwks.ParseDocument(string(content))
	if err != nil {
		return fmt.Errorf("%s %w", path, err)
	}
	f.set = json.RawMessage(document.String())
	return nil
}

// json returns the set.
func (f *keySetFile) json() json.RawMessage { return f.set }

// keySetOfPEM returns a JWK Set with the public keys of a file. A key is for every algorithm that its type allows.
func keySetOfPEM(content []byte) ([]byte, error) {
	var keys []jwks.JWK
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("has a %.40s; register the PUBLIC KEY alone, as openssl pkey -pubout prints it", cli.Printable(block.Type))
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, errors.New("has a PUBLIC KEY that cannot be read")
		}
		key, err := clientassertion.Key(public)
		if err != nil {
			return nil, fmt.Errorf("has a PUBLIC KEY that is of no use: %w", err)
		}
		published, err := key.JWK()
		if err != nil {
			return nil, err
		}
		published.Algorithm = ""
		keys = append(keys, published)
	}
	return encodeSet(keys)
}

// keyIDs returns the ids of a client's keys, with spaces between.
func keyIDs(c *grantorv1.Client) string {
	var ids []string
	for _, key := range c.GetJwks().GetFields()["keys"].GetListValue().GetValues() {
		ids = append(ids, key.GetStructValue().GetFields()["kid"].GetStringValue())
	}
	return strings.Join(ids, " ")
}

func encodeSet(keys []jwks.JWK) ([]byte, error) {
	return json.Marshal(jwkSet{keys})
}

// jwkSet is a JWK Set (RFC 7517 §5).
type jwkSet struct {
	Keys []jwks.JWK `json:"keys"`
}

// keyChange is a change of single keys of a client.
type keyChange struct {
	flags *pflag.FlagSet
	// generate is the file of a new private key, and removed are the ids of the keys to remove.
	generate string
	removed  []string
}

// declareGenerate adds the flag that makes a key.
func (k *keyChange) declareGenerate(cmd *cobra.Command, usage string) {
	k.flags = cmd.Flags()
	k.flags.StringVar(&k.generate, "generate-key", "", usage)
}

// declareRemove adds the flag that removes a key.
func (k *keyChange) declareRemove() {
	k.flags.StringArrayVar(&k.removed, "remove-key", nil, "`kid` of a key to remove from its jwks; can be repeated")
}

// check returns an error if the flags both change single keys and replace all of them.
func (k *keyChange) check() error {
	for _, one := range []string{"generate-key", "remove-key"} {
		for _, whole := range []string{"jwks-file", "jwks-uri"} {
			if k.flags.Lookup(one) == nil {
				continue
			}
			if err := exclusive(k.flags, one, whole); err != nil {
				return err
			}
		}
	}
	if k.flags.Changed("generate-key") && k.generate == "" {
		return cli.SettingError("--generate-key", errors.New("is empty"))
	}
	return nil
}

// apply changes the keys of a client and returns the names of the fields that it sets. It writes the private key before the
// public one is registered, so that no key is registered whose private half is lost.
func (k *keyChange) apply(client *grantorv1.Client) ([]string, error) {
	if k.generate == "" && len(k.removed) == 0 {
		return nil, nil
	}
	var set jwkSet
	if text := registrypb.FieldText(client, keysField); text != "" {
		if err := json.Unmarshal([]byte(text), &set); err != nil {
			return nil, fmt.Errorf("the keys of client %s: %w", cli.Printable(client.GetClientId()), err)
		}
	}
	for _, id := range k.removed {
		before := len(set.Keys)
		if set.Keys = slices.DeleteFunc(set.Keys, func(key jwks.JWK) bool { return key.ID == id }); len(set.Keys) == before {
			return nil, cli.WithExit(cli.ExitNotFound, fmt.Errorf("client %s has no key %s", cli.Printable(client.GetClientId()), cli.Printable(id)))
		}
	}
	if k.generate != "" {
		key, err := clientassertion.WriteNewKey(k.generate)
		if err != nil {
			return nil, cli.SettingError("--generate-key", err)
		}
		public, err := key.JWK()
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, public)
	}
	var value json.RawMessage
	if len(set.Keys) > 0 {
		var err error
		if value, err = encodeSet(set.Keys); err != nil {
			return nil, err
		}
	}
	registrypb.SetField(client, keysField, value)
	return []string{keysField}, nil
}

// discard removes the file of a new private key if the call that registers the key failed, unless the issuer may have made
// the change all the same.
func (k *keyChange) discard(err error) {
	refused, ok := errors.AsType[*remote.CallError](err)
	if !ok || k.generate == "" {
		return
	}
	switch refused.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal:
	default:
		_ = os.Remove(k.generate)
	}
}
