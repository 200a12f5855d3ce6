package storage

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/service/keys"
)

var ErrNoKEK = cli.SettingError("key-encryption-key-file", errors.New("is required: a file with 32 random bytes in base64, as of: openssl rand -base64 32"))

// givenKEK is a key-encryption key as a setting gives it.
type givenKEK struct{ setting, text string }

// given reads the setting of a key-encryption key or of its file; neither is an empty text.
func given(setting, text, file string) (givenKEK, error) {
	if file == "" {
		return givenKEK{setting, text}, nil
	}
	if text != "" {
		return givenKEK{}, cli.SettingError(setting+", "+setting+"-file", errors.New("give one of them"))
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return givenKEK{}, cli.SettingError(setting+"-file", err)
	}
	if text = strings.TrimSpace(string(content)); text == "" {
		return givenKEK{}, cli.SettingError(setting+"-file", errors.New("the file is empty"))
	}
	return givenKEK{setting + "-file", text}, nil
}

// Sealer makes the sealer of the key-encryption keys that the settings give; nil where they give none.
func (s *Settings) Sealer(ctx context.Context) (*keys.Sealer, error) {
	current, err := given("key-encryption-key", s.KEK, s.KEKFile)
	if err != nil {
		return nil, err
	}
	previous, err := given("previous-key-encryption-key", s.PreviousKEK, s.PreviousKEKFile)
	if err != nil {
		return nil, err
	}
	if current.text == "" {
		switch {
		case previous.text != "":
			return nil, cli.SettingError(previous.setting, errors.New("is of no use without key-encryption-key or its file"))
		case s.KEKURL != "":
			return nil, cli.SettingError(kms.URLSetting, errors.New("is of no use without key-encryption-key or its file, wrapped, as of: grantor key wrap"))
		}
		return nil, nil
	}
	unseal := givenKEK.plain
	if s.KEKURL != "" {
		w, err := kms.Open(ctx, s.KEKURL)
		if err != nil {
			return nil, err
		}
		defer w.Close()
		unseal = func(g givenKEK) ([]byte, error) { return w.Unwrap(ctx, g.setting, g.text) }
	}
	kek, err := unseal(current)
	if err != nil || previous.text == "" {
		return sealerOf(err, kek)
	}
	before, err := unseal(previous)
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
		return nil, cli.SettingError(g.setting, err)
	}
	return kek, nil
}
