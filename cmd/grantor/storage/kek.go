package storage

import (
	"context"
	"errors"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/kms"
	"github.com/grantorhq/grantor/service/keys"
)

// ErrNoKEK is the error of a command that needs a key-encryption key and has none.
var ErrNoKEK = cli.SettingError("key-encryption-key-file", errors.New("is required: a file with 32 random bytes in base64, for example from: openssl rand -base64 32"))

// input is a key-encryption key, possibly wrapped, and the setting that has it.
type input struct{ setting, text string }

// read reads a key-encryption key from its setting or from its file. The text is empty if neither is set.
func read(setting, text, file string) (input, error) {
	if file == "" {
		return input{setting, text}, nil
	}
	if text != "" {
		return input{}, cli.SettingError(setting+", "+setting+"-file", errors.New("give one of them"))
	}
	content, err := cli.ReadFile(file, cli.MaxSmallFile)
	if err != nil {
		return input{}, cli.SettingError(setting+"-file", err)
	}
	if text = strings.TrimSpace(string(content)); text == "" {
		return input{}, cli.SettingError(setting+"-file", errors.New("the file is empty"))
	}
	return input{setting + "-file", text}, nil
}

// Sealer returns the sealer of the key-encryption keys, or nil if there are none. With KEKURL, a KMS or vault unwraps
// them.
func (s *Settings) Sealer(ctx context.Context) (*keys.Sealer, error) {
	current, err := read("key-encryption-key", s.KEK, s.KEKFile)
	if err != nil {
		return nil, err
	}
	previous, err := read("previous-key-encryption-key", s.PreviousKEK, s.PreviousKEKFile)
	if err != nil {
		return nil, err
	}
	if current.text == "" {
		switch {
		case previous.text != "":
			return nil, cli.SettingError(previous.setting, errors.New("needs key-encryption-key or its file"))
		case s.KEKURL != "":
			return nil, cli.SettingError(kms.URLSetting, errors.New("needs key-encryption-key or its file, wrapped by grantor key wrap"))
		}
		return nil, nil
	}
	unseal := input.plain
	if s.KEKURL != "" {
		w, err := kms.Open(ctx, s.KEKURL)
		if err != nil {
			return nil, err
		}
		defer w.Close()
		unseal = func(g input) ([]byte, error) { return w.Unwrap(ctx, g.setting, g.text) }
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

// plain parses a key that is not wrapped.
func (g input) plain() ([]byte, error) {
	kek, err := keys.ParseKEK(g.text)
	if err != nil {
		return nil, cli.SettingError(g.setting, err)
	}
	return kek, nil
}
