package kms

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/keys"
)

// NewWrapCommand returns grantor key wrap. Its file of settings may also have the settings in shared.
func NewWrapCommand(shared settings.Names) *cobra.Command {
	var config, url, file string
	cmd := &cobra.Command{
		Use:   "wrap --" + URLSetting + " URL",
		Short: "Print a key-encryption key that a KMS or vault has wrapped",
		Long: `Print a new key-encryption key, wrapped by the key that the URL names, in base64. grantor serve and grantor apply accept it
as the key-encryption key together with the same URL, and have it unwrapped once, when they start.`,
		Args:    cli.NoArgs("the URL follows --" + URLSetting),
		PreRunE: func(cmd *cobra.Command, _ []string) error { return settings.Resolve(cmd.Flags(), shared) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				return cli.SettingError(URLSetting, errors.New("is required: the key in a KMS or vault, such as awskms://alias/grantor?region=eu-west-1"))
			}
			kek, err := plainKey(file)
			if err != nil {
				return err
			}
			w, err := Open(cmd.Context(), url)
			if err != nil {
				return err
			}
			defer w.Close()
			wrapped, err := w.Wrap(cmd.Context(), kek)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), wrapped)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config, "config", "", "`file` with settings in YAML: each flag's name with _ for -, and its value")
	flags.StringVar(&url, URLSetting, "", URLUsage)
	flags.StringVar(&file, "plain-key-file", "", "`file` with a key-encryption key to wrap; default: a new one")
	return cmd
}

// plainKey reads the key to wrap, or generates one.
func plainKey(file string) ([]byte, error) {
	if file == "" {
		return keys.NewKEK(), nil
	}
	content, err := cli.ReadFile(file, cli.MaxSmallFile)
	if err != nil {
		return nil, cli.SettingError("plain-key-file", err)
	}
	kek, err := keys.ParseKEK(string(content))
	if err != nil {
		return nil, cli.SettingError("plain-key-file", err)
	}
	return kek, nil
}
