package admin

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/jwks"
)

// exporter exports the public keys of an issuer. They are public: it needs no client.
type exporter struct {
	remote.Connection

	format, algorithm string
}

func newKeyExportCommand() *cobra.Command {
	s := &exporter{}
	shared := pflag.NewFlagSet("export", pflag.ContinueOnError)
	s.Declare(shared, remote.LocalIssuer)
	cmd := &cobra.Command{
		Use:   "export [KEY]",
		Short: "Print the public keys, for a program that verifies tokens and fetches no keys",
		Long: `Print the public keys with which the issuer's tokens are verified: all that it publishes, or one. They are read from its
key set, which needs no client. A private key never leaves the issuer.

A key is published before it signs, and until the last token that it signed has expired: export again more often than
--jwks-max-age of the issuer. docs/administration.md says how HAProxy and nginx use the output.`,
		Example: `  grantor key export > jwks.json
  grantor key export --format pem --alg ES256
  grantor key export --format pem -- "$KID" > "$KID.pem"`,
		Args: cobra.MaximumNArgs(1),
		PreRunE: func(*cobra.Command, []string) error {
			if err := settings.Resolve(shared, nil); err != nil {
				return err
			}
			if err := cli.OneOf(s.format, "pem", "jwks"); err != nil {
				return cli.SettingError("format", err)
			}
			return s.Fill(shared)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return s.export(cmd.Context(), cmd.OutOrStdout(), args) },
	}
	for _, name := range []string{"issuer", "profile"} {
		cmd.Flags().AddFlag(shared.Lookup(name))
	}
	cmd.Flags().StringVar(&s.format, "format", "jwks", "`form` of the keys: pem, each as a PUBLIC KEY (RFC 7468) below a comment with its id, or jwks, one JWK Set (RFC 7517)")
	cmd.Flags().StringVar(&s.algorithm, "alg", "", "`algorithm` whose keys are printed; default: all")
	cli.CompleteFlag(cmd, "format", "pem", "jwks")
	cli.CompleteFlag(cmd, "alg", signingAlgorithmNames...)
	return cmd
}

func (s *exporter) export(ctx context.Context, out io.Writer, ids []string) error {
	if err := remote.CheckIssuer(s.Issuer); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, remote.Timeout)
	defer cancel()
	set, err := remote.FetchKeys(ctx, s.Issuer)
	if err != nil {
		return err
	}
	var keys []jwks.Key
	for _, key := range set.Keys() {
		if (len(ids) == 0 || key.ID() == ids[0]) && (s.algorithm == "" || string(key.Algorithm()) == s.algorithm) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return cli.WithExit(cli.ExitNotFound, fmt.Errorf("the key set of %s has no such key", cli.Printable(s.Issuer)))
	}
	encode := encodeJWKS
	if s.format == "pem" {
		encode = encodePEM
	}
	document, err := encode(keys)
	if err != nil {
		return err
	}
	_, err = out.Write(document)
	return err
}

// encodePEM encodes keys as SubjectPublicKeyInfo (RFC 5280 §4.1). Readers skip the text between them.
func encodePEM(keys []jwks.Key) ([]byte, error) {
	var document bytes.Buffer
	for _, key := range keys {
		encoded, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, err
		}
		_, _ = fmt.Fprintf(&document, "# %s %s\n", cli.Printable(key.ID()), key.Algorithm())
		if err := pem.Encode(&document, &pem.Block{Type: "PUBLIC KEY", Bytes: encoded}); err != nil {
			return nil, err
		}
	}
	return document.Bytes(), nil
}

func encodeJWKS(keys []jwks.Key) ([]byte, error) {
	set := struct {
		Keys []jwks.JWK `json:"keys"`
	}{make([]jwks.JWK, len(keys))}
	for i, key := range keys {
		var err error
		if set.Keys[i], err = key.JWK(); err != nil {
			return nil, err
		}
	}
	document, err := json.MarshalIndent(set, "", "  ")
	return append(cli.EscapeJSON(document), '\n'), err
}
