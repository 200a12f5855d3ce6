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

// SecretFile takes the client's secret from a file, which is read anew for each token request. So a secret that changes
// there, by whatever means, is in use from the next request on. The secret has 1 to 512 bytes ([oauth.MaxSecret]); line
// ends after it do not count.
//
// While the file cannot be read, is empty or too long, as it may be in the midst of being replaced, the last secret read
// from it serves. If there is none, the [*Error] names the file and never what is in it; toward gRPC it is UNAVAILABLE,
// since a file that others mount or write may come late.
func SecretFile(path string) Option {
	return func(c *config) {
		last := "" // of this source alone; only the one read under way touches it
		c.secrets = append(c.secrets, bounded(func(context.Context) (string, error) {
			read, err := readSecret(path)
			if err == nil {
				last = read
			}
			return last, err
		}))
	}
}

// SecretEnv takes the client's secret from an environment variable, which is read anew for each token request. The
// secret has 1 to 512 bytes ([oauth.MaxSecret]); if it has not, the [*Error] names the variable.
func SecretEnv(name string) Option {
	return func(c *config) {
		c.secrets = append(c.secrets, func(context.Context) (string, *Error) {
			value := os.Getenv(name)
			if err := sound(value, "the environment variable "+name); err != nil {
				return "", misuse("the client secret: %w", err)
			}
			return value, nil
		})
	}
}

// SecretFunc takes the client's secret from a function, which asks a secret manager, say. It is called for each token
// request, and once more if the issuer refuses what it gave. A token request has 10 s with that, which is when ctx ends;
// a function that goes on regardless keeps nobody waiting longer. One Source makes one call at a time. The secret has 1
// to 512 bytes ([oauth.MaxSecret]).
//
// The function's error becomes the Cause of an [*Error], UNAVAILABLE toward gRPC. It must not have the secret in it: it
// is told to whoever needed the token. Nothing is kept from one call to the next, so a secret that is to serve while its
// origin is away has to be kept by the function.
func SecretFunc(secret func(ctx context.Context) (string, error)) Option {
	return func(c *config) {
		c.secrets = append(c.secrets, bounded(func(ctx context.Context) (string, error) {
			value, err := secret(ctx)
			if err == nil {
				err = sound(value, "what the function gave")
			}
			if err != nil {
				return "", err
			}
			return value, nil
		}))
	}
}

// secret gives what the client proves itself with. An error beside a secret says why it may not be the newest one. It
// is a function because printing a struct, by whatever means, shows an address in its place.
type secret func(ctx context.Context) (string, *Error)

func literal(value string) secret {
	return func(context.Context) (string, *Error) { return value, nil }
}

// bounded makes read return when ctx ends, whatever it does, and calls it by one goroutine at a time.
func bounded(read func(context.Context) (string, error)) secret {
	type result struct {
		secret string
		err    error
	}
	turn := make(chan struct{}, 1)
	return func(ctx context.Context) (string, *Error) {
		answer := make(chan result, 1)
		select {
		case turn <- struct{}{}:
			go func() {
				defer func() { <-turn }()
				value, err := read(ctx)
				answer <- result{value, err}
			}()
		case <-ctx.Done(): // an earlier call has not come back
		}
		select {
		case got := <-answer:
			if got.err != nil {
				return got.secret, unavailable(fmt.Errorf("the client secret: %w", got.err))
			}
			return got.secret, nil
		case <-ctx.Done():
			return "", unavailable(fmt.Errorf("waiting for the client secret: %w", ctx.Err()))
		}
	}
}

func readSecret(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	const most = int64(oauth.MaxSecret + len("\r\n"))
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return "", err
	}
	value := string(content)
	if int64(len(content)) <= most { // else it goes on behind what was read
		value = strings.TrimRight(value, "\r\n")
	}
	return value, sound(value, path)
}

// sound checks a secret from origin: what is longer is more likely something else that was named by mistake, and is not
// for the issuer to see.
func sound(value, origin string) error {
	switch {
	case value == "":
		return fmt.Errorf("%s is empty", origin)
	case len(value) > oauth.MaxSecret:
		return fmt.Errorf("%s has more than %d bytes", origin, oauth.MaxSecret)
	}
	return nil
}

// client asks for a token with the client's secret.
type client struct {
	id      string
	secrets []secret // one, or the user was mistaken
	to      asker
}

// asker makes one token request. The secret is given to it, so that what an answer must not repeat is what was sent.
type asker interface {
	ask(ctx context.Context, secret string) (issued, error)
}

func (c *client) issue(ctx context.Context) (issued, error) {
	switch {
	case c.id == "":
		return issued{}, misuse("the client id is empty")
	case len(c.secrets) == 0:
		return issued{}, misuse("the client secret is empty")
	case len(c.secrets) > 1:
		return issued{}, misuse("the client secret is given in %d ways; give it in one", len(c.secrets))
	}
	secret := c.secrets[0]
	sent, failure := secret(ctx)
	if sent == "" {
		return issued{}, failure
	}
	answer, err := c.to.ask(ctx, sent)
	refused := (*Error)(nil)
	if !errors.As(err, &refused) || refused.Code != oauth.InvalidClient {
		return answer, err
	}
	// The secret may have been replaced between the taking and the asking, or be newer than what a cache gave.
	next, failure := secret(ctx)
	switch {
	case next != "" && next != sent:
		return c.to.ask(ctx, next)
	case failure != nil:
		// What was sent may be wrong because this is.
		refused.Cause = failure.Cause
	}
	return issued{}, refused
}
