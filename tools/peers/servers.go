package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/grantorhq/grantor/tools/local"
)

// server is a running server.
type server struct {
	// pids are the processes whose time and memory count.
	pids []int
	// script says that the process is a script that waits for the server, which is its only child once it has answered.
	script bool
	// processes are those to stop, in the reverse order.
	processes []*local.Process
	// began is when the server was started.
	began time.Time
	// address and path are those of the token endpoint, and form is the body of a request.
	address, path, form string
	// grpc is the address of the gRPC port, if the load uses that.
	grpc string
}

func (s *server) stop() {
	for _, p := range slices.Backward(s.processes) {
		p.Stop()
	}
}

// begin starts a program of the server.
func (s *server) begin(ctx context.Context, env []string, name string, args ...string) error {
	s.began = time.Now()
	p, err := local.Start(ctx, slices.Concat(os.Environ(), env), nil, name, args...)
	if err == nil {
		s.processes, s.pids = append(s.processes, p), append(s.pids, p.PID())
	}
	return err
}

// await calls try until it succeeds.
func (s *server) await(ctx context.Context, try func(context.Context) error) error {
	return s.processes[len(s.processes)-1].Await(ctx, try)
}

// grantor returns a starter of Grantor on a Redis of its own, for a resource with the signing algorithm.
func grantor(algorithm string, overGRPC bool) func(context.Context, *lab) (*server, error) {
	return func(ctx context.Context, l *lab) (*server, error) {
		ports, err := local.FreePorts(4)
		if err != nil {
			return nil, err
		}
		s := &server{address: "127.0.0.1:" + ports[1], path: "/connect/token", form: "grant_type=client_credentials&scope=" + scope + "&resource=https%3A%2F%2Forders.internal"}
		if overGRPC {
			s.grpc = "127.0.0.1:" + ports[2]
		}
		if err := s.begin(ctx, nil, "redis-server", "--port", ports[0], "--bind", "127.0.0.1", "--dir", l.dir, "--save", "", "--appendonly", "no"); err != nil {
			return nil, err
		}
		err = s.await(ctx, func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+ports[0])
			if err == nil {
				_ = conn.Close()
			}
			return err
		})
		manifest := l.path(algorithm + ".yaml")
		err = errors.Join(err, os.WriteFile(manifest, fmt.Appendf(nil, `resources:
  - {resource: "%s", scopes: [%s], signing_alg: %s}
clients:
  - {client_id: %s, client_secret: %s, grant_types: [client_credentials], scopes: [%[2]s]}
`, audience, scope, algorithm, client, l.secret), 0o600))
		if err == nil {
			err = s.begin(ctx, nil, l.path("grantor"), "serve", "--redis", "redis://127.0.0.1:"+ports[0], "--key-encryption-key-file", l.path("kek"),
				"--apply", manifest, "--signing-algorithms", "ES256,RS256,EdDSA", "--log-level", "warn", "--shutdown-delay", "0s", "--issuer", "http://localhost:"+ports[1],
				"--http-listen", "127.0.0.1:"+ports[1], "--grpc-listen", "127.0.0.1:"+ports[2], "--ops-listen", "127.0.0.1:"+ports[3])
		}
		return s, err
	}
}

// hydra returns a starter of Hydra with a database in memory. best selects tokens of ES256 and the cheapest hash of secrets.
func hydra(best bool) func(context.Context, *lab) (*server, error) {
	return func(ctx context.Context, l *lab) (*server, error) {
		ports, err := local.FreePorts(2)
		if err != nil {
			return nil, err
		}
		s := &server{address: "127.0.0.1:" + ports[0], path: "/oauth2/token", form: "grant_type=client_credentials&scope=" + scope + "&audience=https%3A%2F%2Forders.internal"}
		env := []string{
			"DSN=memory", "LOG_LEVEL=warn", "SECRETS_SYSTEM=" + l.secret, "URLS_SELF_ISSUER=http://" + s.address,
			"SERVE_PUBLIC_HOST=127.0.0.1", "SERVE_PUBLIC_PORT=" + ports[0], "SERVE_ADMIN_HOST=127.0.0.1", "SERVE_ADMIN_PORT=" + ports[1],
		}
		if best {
			env = append(env, "STRATEGIES_ACCESS_TOKEN=jwt", "OAUTH2_HASHERS_PBKDF2_ITERATIONS=1")
		}
		if err := s.begin(ctx, env, l.path("hydra"), "serve", "all", "--dev", "--sqa-opt-out"); err != nil {
			return nil, err
		}
		admin := "http://127.0.0.1:" + ports[1]
		if err := s.await(ctx, func(ctx context.Context) error { return call(ctx, http.MethodGet, admin+"/health/ready", nil) }); err != nil {
			return s, err
		}
		if best {
			const set = "/admin/keys/hydra.jwt.access-token"
			_ = call(ctx, http.MethodDelete, admin+set, nil) // there may be none
			if err := call(ctx, http.MethodPost, admin+set, map[string]any{"alg": "ES256", "kid": "peer", "use": "sig"}); err != nil {
				return s, err
			}
		}
		return s, call(ctx, http.MethodPost, admin+"/admin/clients", map[string]any{
			"client_id": client, "client_secret": l.secret, "grant_types": []string{"client_credentials"}, "scope": scope,
			"audience": []string{audience}, "token_endpoint_auth_method": "client_secret_basic",
		})
	}
}

// keycloak returns a starter of Keycloak with a database in memory. best selects ES256 and a token without the claims of users.
func keycloak(best bool) func(context.Context, *lab) (*server, error) {
	return func(ctx context.Context, l *lab) (*server, error) {
		ports, err := local.FreePorts(2)
		if err != nil {
			return nil, err
		}
		realm := "default"
		s := &server{address: "127.0.0.1:" + ports[0], form: "grant_type=client_credentials"}
		if best {
			realm = "best"
			s.form += "&scope=" + scope
		}
		s.path = "/realms/" + realm + "/protocol/openid-connect/token"
		err = s.begin(ctx, nil, filepath.Join(l.keycloak(), "bin/kc.sh"), "start", "--optimized", "--import-realm", "--http-enabled=true", "--hostname-strict=false",
			"--http-host=127.0.0.1", "--http-port="+ports[0], "--http-management-port="+ports[1], "--log-level=warn")
		s.script = true
		return s, err
	}
}

// spring returns a starter of Spring Authorization Server.
func spring(best bool) func(context.Context, *lab) (*server, error) {
	return func(ctx context.Context, l *lab) (*server, error) {
		ports, err := local.FreePorts(1)
		if err != nil {
			return nil, err
		}
		s := &server{address: "127.0.0.1:" + ports[0], path: "/oauth2/token", form: "grant_type=client_credentials&scope=" + scope}
		hash, err := bcrypt.GenerateFromPassword([]byte(l.secret), bcrypt.DefaultCost)
		if err != nil {
			return nil, err
		}
		stored := "{bcrypt}" + string(hash)
		args := []string{"-jar", l.path("spring/peer.jar"), "--server.address=127.0.0.1", "--server.port=" + ports[0]}
		if best {
			stored = "{noop}" + l.secret
			args = append(args, "--peer.best=true", "--spring.threads.virtual.enabled=true")
		}
		const registration = "--spring.security.oauth2.authorizationserver.client.load.registration."
		args = append(args, registration+"client-id="+client, registration+"client-secret="+stored, registration+"scopes="+scope,
			registration+"client-authentication-methods=client_secret_basic", registration+"authorization-grant-types=client_credentials")
		return s, s.begin(ctx, nil, l.java(), args...)
	}
}

// call calls a method of an administrative API, whose answer must be a success.
func call(ctx context.Context, method, url string, content any) error {
	body, err := json.Marshal(content)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	return nil
}
