package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"gocloud.dev/secrets"
	_ "gocloud.dev/secrets/awskms"        // awskms://
	_ "gocloud.dev/secrets/azurekeyvault" // azurekeyvault://
	_ "gocloud.dev/secrets/gcpkms"        // gcpkms://
	_ "gocloud.dev/secrets/hashivault"    // hashivault://
	_ "gocloud.dev/secrets/localsecrets"  // base64key://

	"github.com/grantorhq/grantor/service/keys"
)

const (
	kekURLName = "key-encryption-key-url"
	kekURLHelp = "`URL` of the key in a KMS or vault that has wrapped the key-encryption keys, as of grantor key wrap: awskms://, gcpkms://, azurekeyvault:// or hashivault://"
)

var errNoKEK = settingError("key-encryption-key-file", errors.New("is required: a file with 32 random bytes in base64, as of: openssl rand -base64 32"))

// kekPatience is how long a KMS or vault may take.
const kekPatience = 30 * time.Second

// givenKEK is a key-encryption key as a setting gives it.
type givenKEK struct{ setting, text string }

// given reads the setting of a key-encryption key or of its file; neither is an empty text.
func given(setting, text, file string) (givenKEK, error) {
	if file == "" {
		return givenKEK{setting, text}, nil
	}
	if text != "" {
		return givenKEK{}, settingError(setting+", "+setting+"-file", errors.New("give one of them"))
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return givenKEK{}, settingError(setting+"-file", err)
	}
	if text = strings.TrimSpace(string(content)); text == "" {
		return givenKEK{}, settingError(setting+"-file", errors.New("the file is empty"))
	}
	return givenKEK{setting + "-file", text}, nil
}

// sealer makes the sealer of the key-encryption keys that the settings give; nil where they give none.
func (s *storeSettings) sealer(ctx context.Context) (*keys.Sealer, error) {
	current, err := given("key-encryption-key", s.kek, s.kekFile)
	if err != nil {
		return nil, err
	}
	previous, err := given("previous-key-encryption-key", s.previousKEK, s.previousKEKFile)
	if err != nil {
		return nil, err
	}
	if current.text == "" {
		switch {
		case previous.text != "":
			return nil, settingError(previous.setting, errors.New("is of no use without key-encryption-key or its file"))
		case s.kekURL != "":
			return nil, settingError(kekURLName, errors.New("is of no use without key-encryption-key or its file, wrapped, as of: grantor key wrap"))
		}
		return nil, nil
	}
	read := givenKEK.plain
	if s.kekURL != "" {
		w, err := openWrapper(ctx, s.kekURL)
		if err != nil {
			return nil, err
		}
		defer w.close()
		read = func(g givenKEK) ([]byte, error) { return w.unwrap(ctx, g) }
	}
	kek, err := read(current)
	if err != nil || previous.text == "" {
		return sealerOf(err, kek)
	}
	before, err := read(previous)
	return sealerOf(err, kek, before)
}

func sealerOf(err error, kek []byte, previous ...[]byte) (*keys.Sealer, error) {
	if err != nil {
		return nil, err
	}
	return keys.NewSealer(kek, previous...)
}

// plain reads a key that is given as it is.
func (g givenKEK) plain() ([]byte, error) {
	kek, err := keys.ParseKEK(g.text)
	if err != nil {
		return nil, settingError(g.setting, err)
	}
	return kek, nil
}

// wrapper wraps key-encryption keys with a key that stays where it is, in a KMS or vault.
type wrapper struct {
	url    string
	keeper *secrets.Keeper
}

func openWrapper(ctx context.Context, url string) (*wrapper, error) {
	if url == "base64key://" {
		return nil, settingError(kekURLName, errors.New("the URL has no key, and another one each time would open nothing"))
	}
	keeper, err := secrets.OpenKeeper(ctx, url)
	if err != nil {
		return nil, settingError(kekURLName, withoutURL(url, err))
	}
	return &wrapper{url, keeper}, nil
}

// withoutURL keeps the URL out of an error that quotes it: that of a local key is the key.
func withoutURL(url string, err error) error {
	scheme, _, _ := strings.Cut(url, "://")
	text := strings.ReplaceAll(err.Error(), url, scheme+"://...")
	return errors.New(strings.Join(strings.Fields(text), " ")) // what a vault says has many lines
}

func (w *wrapper) close() { _ = w.keeper.Close() }

// wrap gives a key wrapped, in base64.
func (w *wrapper) wrap(ctx context.Context, kek []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, kekPatience)
	defer cancel()
	wrapped, err := w.keeper.Encrypt(ctx, kek)
	if err != nil {
		return "", settingError(kekURLName, fmt.Errorf("the key cannot be wrapped: %w", withoutURL(w.url, err)))
	}
	return base64.StdEncoding.EncodeToString(wrapped), nil
}

// unwrap reads what wrap gave.
func (w *wrapper) unwrap(ctx context.Context, g givenKEK) ([]byte, error) {
	if _, err := keys.ParseKEK(g.text); err == nil {
		return nil, settingError(g.setting, errors.New("is a plain key; with "+kekURLName+" it is given wrapped, as of: grantor key wrap"))
	}
	wrapped, err := base64.StdEncoding.DecodeString(g.text)
	if err != nil {
		return nil, settingError(g.setting, errors.New("is not base64, as grantor key wrap prints it")) // the cause would quote it
	}
	ctx, cancel := context.WithTimeout(ctx, kekPatience)
	defer cancel()
	kek, err := w.keeper.Decrypt(ctx, wrapped)
	if err != nil {
		return nil, settingError(g.setting, fmt.Errorf("%s does not unwrap it: %w", kekURLName, withoutURL(w.url, err)))
	}
	if len(kek) != keys.KEKSize {
		return nil, settingError(g.setting, fmt.Errorf("what is wrapped has %d bytes, not %d", len(kek), keys.KEKSize))
	}
	return kek, nil
}
