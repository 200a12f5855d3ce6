// Package kms wraps and unwraps key-encryption keys with a key that stays in a KMS or vault. It is the only package that
// imports gocloud.dev, and with it the SDKs of the clouds.
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

const (
	URLSetting = "key-encryption-key-url"
	URLUsage   = "`URL` of the key in a KMS or vault that has wrapped the key-encryption keys, as of grantor key wrap: awskms://, gcpkms://, azurekeyvault:// or hashivault://"
)

// timeout is how long a KMS or vault may take.
const timeout = 30 * time.Second

// Wrapper wraps key-encryption keys with a key that stays where it is, in a KMS or vault.
type Wrapper struct {
	url    string
	keeper *secrets.Keeper
}

func Open(ctx context.Context, url string) (*Wrapper, error) {
	if url == "base64key://" {
		return nil, cli.SettingError(URLSetting, errors.New("the URL has no key, and another one each time would open nothing"))
	}
	keeper, err := secrets.OpenKeeper(ctx, url)
	if err != nil {
		return nil, cli.SettingError(URLSetting, withoutURL(url, err))
	}
	return &Wrapper{url, keeper}, nil
}

// withoutURL keeps the URL out of an error that quotes it: that of a local key is the key.
func withoutURL(url string, err error) error {
	scheme, _, _ := strings.Cut(url, "://")
	text := strings.ReplaceAll(err.Error(), url, scheme+"://...")
	return errors.New(strings.Join(strings.Fields(text), " ")) // what a vault says has many lines
}

func (w *Wrapper) Close() { _ = w.keeper.Close() }

// Wrap gives a key wrapped, in base64.
func (w *Wrapper) Wrap(ctx context.Context, kek []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	wrapped, err := w.keeper.Encrypt(ctx, kek)
	if err != nil {
		return "", cli.SettingError(URLSetting, fmt.Errorf("the key cannot be wrapped: %w", withoutURL(w.url, err)))
	}
	return base64.StdEncoding.EncodeToString(wrapped), nil
}

// Unwrap reads what wrap gave: the text of a setting, which its errors name.
func (w *Wrapper) Unwrap(ctx context.Context, setting, text string) ([]byte, error) {
	if _, err := keys.ParseKEK(text); err == nil {
		return nil, cli.SettingError(setting, errors.New("is a plain key; with "+URLSetting+" it is given wrapped, as of: grantor key wrap"))
	}
	wrapped, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, cli.SettingError(setting, errors.New("is not base64, as grantor key wrap prints it")) // the cause would quote it
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	kek, err := w.keeper.Decrypt(ctx, wrapped)
	if err != nil {
		return nil, cli.SettingError(setting, fmt.Errorf("%s does not unwrap it: %w", URLSetting, withoutURL(w.url, err)))
	}
	if len(kek) != keys.KEKSize {
		return nil, cli.SettingError(setting, fmt.Errorf("what is wrapped has %d bytes, not %d", len(kek), keys.KEKSize))
	}
	return kek, nil
}
