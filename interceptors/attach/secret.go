package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// SecretFile reads the client's secret from a file, once for each token request. A secret that is replaced there is
// used from the next request on. The secret has 1 to 512 bytes ([oauth.MaxSecret]); trailing line breaks are removed.
//
// While the file cannot be read, is empty or is too long, as it may be while it is being replaced, the secret that was
// read last is used. If there is none, the [*Error] names the file and never its content; its status is UNAVAILABLE,
// because the file may be mounted or written later.
func SecretFile(path string) Option {
	return func(c *config) {
		last := "" // used only by the one read in flight
		c.secrets = append(c.secrets, interruptible("the client secret", func(context.Context) (string, error) {
			read, err := readSecret(path)
			if err == nil {
				last = read
			}
			return last, err
		}))
	}
}

// SecretEnv reads the client's secret from an environment variable, once for each token request. The secret has 1 to
// 512 bytes ([oauth.MaxSecret]); for any other value, the [*Error] names the variable.
func SecretEnv(name string) Option {
	return func(c *config) {
		c.secrets = append(c.secrets, func(context.Context) (string, *Error) {
			value := os.Getenv(name)
			if err := checkSecret(value, "the environment variable "+name); err != nil {
				return "", misuse("the client secret: %w", err)
			}
			return value, nil
		})
	}
}

// SecretFunc gets the client's secret from a function, such as one that calls a secret manager. The function is called
// once for each token request, and once more if the issuer refuses the secret. A Source never calls it concurrently.
// The secret has 1 to 512 bytes ([oauth.MaxSecret]).
//
// The function shares the 10 s of its token request, at the end of which ctx is done. A function that ignores ctx does
// not prolong any caller's wait.
//
// The function's error becomes the Cause of an [*Error] whose status is UNAVAILABLE. It must not contain the secret,
// because callers that need a token see it. No secret is cached between calls: a function whose secret should outlive
// an outage of its source has to cache it.
func SecretFunc(secret func(ctx context.Context) (string, error)) Option {
	return func(c *config) {
		c.secrets = append(c.secrets, interruptible("the client secret", func(ctx context.Context) (string, error) {
			if secret == nil {
				return "", errors.New("the function is nil")
			}
			value, err := secret(ctx)
			if err == nil {
				err = checkSecret(value, "the value returned by the function")
			}
			if err != nil {
				return "", err
			}
			return value, nil
		}))
	}
}

// secret returns the client's secret. An error beside a secret says why the secret may not be the newest one. The type
// is a function because printing a struct that contains one, by whatever means, prints an address instead of the
// secret.
type secret func(ctx context.Context) (string, *Error)

func literal(value string) secret {
	return func(context.Context) (string, *Error) { return value, nil }
}

// interruptible returns a secret that stops waiting for read when ctx ends, even if read goes on. It never calls read
// concurrently. Errors begin with what is read.
func interruptible(what string, read func(context.Context) (string, error)) secret {
	type result struct {
		secret string
		err    error
	}
	sem := make(chan struct{}, 1)
	return func(ctx context.Context) (string, *Error) {
		answer := make(chan result, 1)
		select {
		case sem <- struct{}{}:
			go func() {
				got := result{err: errors.New("the function ended its goroutine")}
				defer func() { answer <- got; <-sem }()
				got.secret, got.err = guard("the function", func() (string, error) { return read(ctx) })
			}()
		case <-ctx.Done(): // an earlier call has not returned
		}
		select {
		case got := <-answer:
			if got.err != nil {
				return got.secret, unavailable(fmt.Errorf("%s: %w", what, got.err))
			}
			return got.secret, nil
		case <-ctx.Done():
			return "", unavailable(fmt.Errorf("waiting for %s: %w", what, ctx.Err()))
		}
	}
}

func readSecret(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	const maxFile = int64(oauth.MaxSecret + len("\r\n"))
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return "", err
	}
	value := string(content)
	if int64(len(content)) <= maxFile { // otherwise the file has more than was read
		value = strings.TrimRight(value, "\r\n")
	}
	return value, checkSecret(value, path)
}

// checkSecret validates the length of a secret from origin. A longer value is probably a different file or variable
// that was named by mistake, and must not be sent to the issuer.
func checkSecret(value, origin string) error {
	switch {
	case value == "":
		return fmt.Errorf("%s is empty", origin)
	case len(value) > oauth.MaxSecret:
		return fmt.Errorf("%s has more than %d bytes", origin, oauth.MaxSecret)
	}
	return nil
}
