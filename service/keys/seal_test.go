package keys_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/keys"
)

func TestNewSealer(t *testing.T) {
	for size, ok := range map[int]bool{0: false, 16: false, 24: false, 31: false, 32: true, 33: false, 64: false} {
		if _, err := keys.NewSealer(make([]byte, size)); (err == nil) != ok {
			t.Errorf("%d bytes: got %v, want ok %v", size, err, ok)
		}
	}
}

func TestParseKEK(t *testing.T) {
	key := bytes.Repeat([]byte("sesame!?"), 4)
	text := base64.StdEncoding.EncodeToString(key)
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"plain":         {text, true},
		"with line end": {text + "\n", true},
		"with blanks":   {"  " + text + "\r\n", true},
		"empty":         {"", false},
		"raw":           {string(key), false},
		"no padding":    {strings.TrimRight(text, "="), false},
		"hexadecimal":   {strings.Repeat("ab", 32), false},
		"16 bytes":      {base64.StdEncoding.EncodeToString(key[:16]), false},
		"33 bytes":      {base64.StdEncoding.EncodeToString(append(key, 0)), false},
		"not base64":    {"!" + text[1:], false},
		"trailing text": {text + " x", false},
	} {
		got, err := keys.ParseKEK(test.text)
		if (err == nil) != test.ok || (test.ok && !bytes.Equal(got, key)) {
			t.Errorf("%s: got %q, %v, want ok %v", name, got, err, test.ok)
		}
		if err != nil && len(test.text) > 3 && strings.Contains(err.Error(), test.text[1:len(test.text)-3]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestNewKEK(t *testing.T) {
	a, b := keys.NewKEK(), keys.NewKEK()
	if len(a) != keys.KEKSize || bytes.Equal(a, b) {
		t.Errorf("got %d bytes, equal to another key: %v", len(a), bytes.Equal(a, b))
	}
}
