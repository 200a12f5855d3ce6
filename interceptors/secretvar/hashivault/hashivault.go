// Package hashivault follows a secret in the key-value engine of HashiCorp Vault, version 1 or 2, or of a server with the
// same API such as OpenBao. Importing it registers the scheme hashivault with the Go Cloud Development Kit's variables, and
// so with secretvar:
//
//	import _ "github.com/grantorhq/grantor/interceptors/secretvar/hashivault"
//
//	variable, err := secretvar.Open(ctx, "hashivault://secret/background-service?field=client_secret")
//
// # URLs
//
// Host and path are what vault kv get takes: the mount of the engine and the path of the secret in it. The parameters are
//
//   - field: the field that has the secret. If the secret has a single field, it may be left out.
//   - kv: the version of the engine, 1 or 2; 2 by default.
//   - mount: the mount of the engine, if it is more than the first segment of the path.
//   - version: the version to read, of an engine of version 2; by default the newest.
//   - wait: how soon a change is seen, 30 s by default.
//   - decoder: string or bytes, as for every variable of Go CDK.
//
// # The server
//
// The server and the token come from the environment that HashiCorp's client reads: VAULT_ADDR, VAULT_TOKEN,
// VAULT_NAMESPACE, VAULT_CACERT and the others. VAULT_SERVER_URL and VAULT_SERVER_TOKEN take precedence, as they do for the
// keys that Go CDK has in Vault. The token is sent as it is and never renewed. Where tokens expire, Vault Agent or Vault
// Proxy renews them: it authenticates the process, and VAULT_ADDR is its address.
package hashivault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/api"
	"gocloud.dev/gcerrors"
	"gocloud.dev/runtimevar"

	"github.com/grantorhq/grantor/interceptors/secretvar/poll"
)

// Scheme is the scheme of the URLs.
const Scheme = "hashivault"

func init() { runtimevar.DefaultURLMux().RegisterVariable(Scheme, opener{}) }

// opener implements [runtimevar.VariableURLOpener].
type opener struct{}

// OpenVariableURL implements [runtimevar.VariableURLOpener].
func (opener) OpenVariableURL(ctx context.Context, u *url.URL) (*runtimevar.Variable, error) {
	query := u.Query()
	options, err := poll.ParseOptions(ctx, query, "field", "kv", "mount", "version")
	if err != nil {
		return nil, fmt.Errorf("open variable %v: %w", u, err)
	}
	s := &store{field: query.Get("field")}
	if err := s.locate(u, query); err != nil {
		return nil, fmt.Errorf("open variable %v: %w", u, err)
	}
	if err := s.connect(); err != nil {
		return nil, fmt.Errorf("open variable %v: %w", u, err)
	}
	return poll.New(s, options), nil
}

// store implements [poll.Store].
type store struct {
	client    *api.Client
	transport *http.Transport
	// path is the path of the API, after /v1/. versioned reports whether the engine is of version 2, and query has the
	// version to read.
	path      string
	versioned bool
	query     url.Values
	// field is the field that has the secret; empty if the secret has only one.
	field string
}

// locate finds out from a URL which path of the API has the secret.
func (s *store) locate(u *url.URL, query url.Values) error {
	full := u.Host + u.Path
	mount := strings.Trim(query.Get("mount"), "/")
	if mount == "" {
		mount, _, _ = strings.Cut(full, "/")
	}
	name, within := strings.CutPrefix(full, mount+"/")
	switch {
	case u.Opaque != "" || u.User != nil || u.Fragment != "" || u.Port() != "":
		return errors.New("beside its parameters the URL has the mount and the path of the secret; the server is in VAULT_ADDR")
	case !strings.Contains(full, "/") || slices.ContainsFunc(strings.Split(full, "/"), notSegment):
		return errors.New("the URL needs the mount of the engine and the path of the secret")
	case !within:
		return errors.New("the path does not begin with the mount")
	}
	version := query.Get("version")
	switch kv := query.Get("kv"); {
	case kv == "1" && version != "":
		return errors.New("an engine of version 1 has no versions of a secret")
	case kv == "1":
		s.path = full
		return nil
	case kv != "" && kv != "2":
		return errors.New("kv is neither 1 nor 2")
	}
	s.path, s.versioned = mount+"/data/"+name, true
	if version != "" {
		if n, err := strconv.ParseUint(version, 10, 32); err != nil || n == 0 {
			return errors.New("version is a number from 1 on")
		}
		s.query = url.Values{"version": {version}}
	}
	return nil
}

// notSegment reports whether a segment of a path is none of an engine's.
func notSegment(segment string) bool { return segment == "" || segment == "." || segment == ".." }

// connect makes the client of the server that the environment names. It sends nothing yet.
func (s *store) connect() error {
	config := api.DefaultConfig()
	if config.Error != nil {
		return fmt.Errorf("the environment of HashiCorp Vault: %w", config.Error)
	}
	if address := os.Getenv("VAULT_SERVER_URL"); address != "" {
		config.Address = address
	}
	// A request is repeated only after what may be over in a second; for everything else package poll reads again.
	config.MinRetryWait, config.MaxRetryWait, config.Backoff = 200*time.Millisecond, 400*time.Millisecond, nil
	client, err := api.NewClient(config)
	if err != nil {
		return errors.New("the environment of HashiCorp Vault: VAULT_ADDR or another variable is not valid")
	}
	if token := os.Getenv("VAULT_SERVER_TOKEN"); token != "" {
		client.SetToken(token)
	}
	if strings.ContainsFunc(client.Token(), func(r rune) bool { return !unicode.IsPrint(r) }) {
		return errors.New("the environment of HashiCorp Vault: the token contains a character that is not printable, such as a line break")
	}
	client.SetWrappingLookupFunc(func(string, string) string { return "" }) // VAULT_WRAP_TTL would hide the secret
	transport, ok := config.HttpClient.Transport.(*http.Transport)
	if !ok {
		return errors.New("HashiCorp's client has another transport than expected")
	}
	// NewClient needs the transport itself, to dial a Unix socket.
	config.HttpClient.Transport = poll.Limit(transport)
	s.client, s.transport = client, transport
	return nil
}

// Close implements [poll.Store].
func (s *store) Close() { s.transport.CloseIdleConnections() }

// Read implements [poll.Store].
func (s *store) Read(ctx context.Context) ([]byte, error) {
	secret, err := s.client.Logical().ReadWithDataWithContext(ctx, s.path, s.query)
	if err != nil {
		return nil, failure(err)
	}
	if secret == nil {
		return nil, s.notFound()
	}
	fields := secret.Data
	if s.versioned {
		metadata, _ := fields["metadata"].(map[string]any)
		fields, _ = fields["data"].(map[string]any)
		if fields == nil && metadata != nil {
			return nil, gone(metadata)
		}
	}
	if fields == nil {
		return nil, s.notFound()
	}
	return s.choose(fields)
}

// choose returns the field that has the secret.
func (s *store) choose(fields map[string]any) ([]byte, error) {
	value, found := fields[s.field]
	if s.field == "" {
		if len(fields) != 1 {
			return nil, &poll.Error{Text: fmt.Sprintf("the secret has %d fields; the parameter field must name one", len(fields)), Code: gcerrors.FailedPrecondition}
		}
		for _, value = range fields {
			found = true
		}
	}
	text, isText := value.(string)
	switch {
	case !found:
		return nil, &poll.Error{Text: fmt.Sprintf("the secret has no field %q", s.field), Code: gcerrors.NotFound}
	case !isText:
		return nil, &poll.Error{Text: "the field of the secret is not text", Code: gcerrors.FailedPrecondition}
	}
	return []byte(text), nil
}

// notFound returns the error of a path without a secret. A server answers the same if the engine has another version.
func (s *store) notFound() error {
	text := "there is no such secret, or the engine is of version 2, which kv=2 reads"
	if s.versioned {
		text = "there is no such secret, or the engine is of version 1, which kv=1 reads"
	}
	return &poll.Error{Text: text, Code: gcerrors.NotFound}
}

// gone returns the error of a version without data.
func gone(metadata map[string]any) error {
	text := "the version of the secret is deleted"
	if destroyed, _ := metadata["destroyed"].(bool); destroyed {
		text = "the version of the secret is destroyed"
	}
	return &poll.Error{Text: text, Code: gcerrors.NotFound}
}

// refusals maps each status that a Vault answers to a read to what it means.
var refusals = map[int]poll.Error{
	http.StatusBadRequest:          {Text: "the server does not accept the request", Code: gcerrors.InvalidArgument},
	http.StatusForbidden:           {Text: "the token is not valid, or may not read the secret", Code: gcerrors.PermissionDenied},
	http.StatusNotFound:            {Text: "there is no such secret", Code: gcerrors.NotFound},
	http.StatusTooManyRequests:     {Text: "the server's quota is exhausted", Code: gcerrors.ResourceExhausted},
	http.StatusInternalServerError: {Text: "the server failed", Code: gcerrors.Internal},
	http.StatusServiceUnavailable:  {Text: "the server is sealed or under maintenance", Code: gcerrors.FailedPrecondition},
}

// failure returns the error of a request. It quotes the status of an answer, and nothing that the server wrote.
func failure(err error) error {
	if refused, ok := errors.AsType[*api.ResponseError](err); ok {
		return poll.Refusal(refused.StatusCode, refusals)
	}
	return poll.Unreachable(err)
}
