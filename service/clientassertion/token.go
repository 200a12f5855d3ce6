package clientassertion

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// MaxSize is the maximum size of an assertion, in bytes.
const MaxSize = 8 << 10

// ReadToken reads the token of another issuer, a JWT, from a file. White space around it is removed. An error never contains
// a part of the file.
func ReadToken(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if len(data) > MaxSize {
		token = string(data)
	}
	if err := Check(token, path); err != nil {
		return "", err
	}
	// Another file that was named by mistake must not be sent to the issuer.
	if strings.Count(token, ".") != 2 || strings.Trim(token, jwtChars) != "" {
		return "", fmt.Errorf("%s has no JWT", path)
	}
	return token, nil
}

// jwtChars are the characters of a JWT.
const jwtChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// Check validates the form of an assertion from origin.
func Check(assertion, origin string) error {
	switch {
	case assertion == "":
		return fmt.Errorf("%s is empty", origin)
	case len(assertion) > MaxSize:
		return fmt.Errorf("%s has more than %d bytes", origin, MaxSize)
	case strings.ContainsFunc(assertion, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%s is not visible ASCII", origin)
	}
	return nil
}
