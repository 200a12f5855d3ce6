// Package kms wraps and unwraps key-encryption keys with a key that stays in a KMS or vault. It is the only package that
// imports the keepers of gocloud.dev, and with them the SDKs of the clouds' KMS.
package kms

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/awskms"        // awskms://
	_ "gocloud.dev/secrets/azurekeyvault" // azurekeyvault://
	_ "gocloud.dev/secrets/gcpkms"        // gcpkms://
	_ "gocloud.dev/secrets/hashivault"    // hashivault://
	_ "gocloud.dev/secrets/localsecrets"  // base64key://

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/keys"
)

// The setting that names the key in a KMS or vault.
const (
	URLSetting = "key-encryption-key-url"
	URLUsage   = "`URL` of the key in a KMS or vault that wrapped the key-encryption keys by grantor key wrap: awskms://, gcpkms://, azurekeyvault:// or hashivault://"
)

// timeout bounds a call to a KMS or vault.
const timeout = 30 * time.Second

// Wrapper wraps key-encryption keys with a key that never leaves a KMS or vault.
type Wrapper struct {
	url    string
	keeper *secrets.Keeper
}

// Open opens the key that a URL names.
func Open(ctx context.Context, url string) (*Wrapper, error) {
	if url == "base64key://" {
		return nil, cli.SettingError(URLSetting, errors.New("the URL has no key, so that each start would use another one"))
	}
	keeper, err := secrets.OpenKeeper(ctx, url)
	if err != nil {
		return nil, cli.SettingError(URLSetting, withoutURL(url, err))
	}
	return &Wrapper{url, keeper}, nil
}

// withoutURL removes the URL from an error that quotes it: the URL of a local key is the key.
func withoutURL(url string, err error) error {
	scheme, _, _ := strings.Cut(url, "://")
	text := strings.ReplaceAll(err.Error(), url, scheme+"://...")
	return errors.New(strings.Join(strings.Fields(text), " ")) // the errors of a vault have several lines
}

// Close releases the connection to the KMS or vault.
func (w *Wrapper) Close() { _ = w.keeper.Close() }

// Wrap returns a wrapped key in base64.
func (w *Wrapper) Wrap(ctx context.Context, kek []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	wrapped, err := w.keeper.Encrypt(ctx, kek)
	if err != nil {
		return "", cli.SettingError(URLSetting, fmt.Errorf("the key cannot be wrapped: %w", withoutURL(w.url, err)))
	}
	return base64.StdEncoding.EncodeToString(wrapped), nil
}

// Unwrap returns the key that [Wrapper.Wrap] wrapped as text. Its errors name setting, which has the text.
func (w *Wrapper) Unwrap(ctx context.Context, setting, text string) ([]byte, error) {
	if _, err := keys.ParseKEK(text); err == nil {
		return nil, cli.SettingError(setting, errors.New("is a plain key; with "+URLSetting+" it must be wrapped by grantor key wrap"))
	}
	wrapped, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, cli.SettingError(setting, errors.New("is not base64, as grantor key wrap prints it")) // the error of the decoder quotes the text
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	kek, err := w.keeper.Decrypt(ctx, wrapped)
	if err != nil {
		return nil, cli.SettingError(setting, fmt.Errorf("%s does not unwrap it: %w", URLSetting, withoutURL(w.url, err)))
	}
	if len(kek) != keys.KEKSize {
		return nil, cli.SettingError(setting, fmt.Errorf("the wrapped key has %d bytes, not %d", len(kek), keys.KEKSize))
	}
	return kek, nil
}
