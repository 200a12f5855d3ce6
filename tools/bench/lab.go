package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/tools/local"
)

// lab holds the programs to measure and the files that they need.
type lab struct {
	*settings

	dir string
	// env is the environment of every process.
	env []string
	// secret is the secret of the load's client and of the administrator.
	secret string
	// loads is the number of light loads, and unsteady the number of those that were measured although the rate was not steady.
	loads, unsteady int
}

// The clients, resources and scopes of the manifest. Each resource has a different signing algorithm.
const (
	loadClient  = "load"
	keyedClient = "keyed"
	adminClient = "administrator"
	ordersAPI   = "https://orders.internal"
	edAPI       = "https://ed.internal"
	rsaAPI      = "https://rsa.internal"
	ordersScope = "orders.read"
	edScope     = "ed.read"
	rsaScope    = "rsa.read"
)

const (
	// keyFile is the file of the lab with the private key of keyedClient.
	keyFile = "client.pem"
	// tokenFile is the file with a token of the trusted issuer elsewhere, which is valid for a day.
	tokenFile = "workload.jwt"
	elsewhere = "https://cluster.example.com"
	// anyReplica is the audience of that token: the URL of the issuer differs from start to start.
	anyReplica = "https://grantor.example.com"
)

// newLab builds the programs and writes the files that they need.
func newLab(ctx context.Context, s *settings, dir string) (*lab, error) {
	l := &lab{settings: s, dir: dir, secret: clientsecret.New()}
	l.env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "GRANTOR_") })
	l.env = append(l.env, "GRANTOR_CLIENT_SECRET="+l.secret)
	progressf("building")
	if err := l.build(ctx, "grantor", "./cmd/grantor", "-tags", "grpcnotrace", "-ldflags", "-X github.com/grantorhq/grantor/cmd/grantor/buildinfo.version="); err != nil {
		return nil, err
	}
	if err := l.build(ctx, "yardstick", "./tools/yardstick"); err != nil {
		return nil, err
	}
	kek := make([]byte, 32)
	_, _ = rand.Read(kek) // never fails (crypto/rand)
	key, err := clientassertion.WriteNewKey(l.path(keyFile))
	if err != nil {
		return nil, err
	}
	keys, err := jwks.NewDocument(key)
	if err != nil {
		return nil, err
	}
	cluster := jwstest.NewSigner(jwks.ES256)
	workload := cluster.Sign(jwstest.Object{"alg": cluster.Algorithm, "kid": cluster.Key().ID()}, jwstest.Object{
		"iss": elsewhere, "sub": "system:serviceaccount:shop:orders", "aud": anyReplica, "exp": time.Now().Add(24 * time.Hour).Unix(),
	})
	manifest := fmt.Sprintf(`resources:
  - {resource: "%s", scopes: [%s]}
  - {resource: "%s", scopes: [%s], signing_alg: EdDSA}
  - {resource: "%s", scopes: [%s], signing_alg: RS256}
clients:
  - {client_id: %s, client_secret: %s, grant_types: [client_credentials], scopes: [%s, %s, %s]}
  - {client_id: %s, client_secret: %s, scopes: ["grantor:clients.write", "grantor:resources.write"]}
  - {client_id: %s, jwks: %s, scopes: [%s]}
trusted_issuers:
  - {issuer: "%s", jwks: %s, audience: ["%s"]}
workloads:
  - {client_id: "k8s:{name}", issuer: "%s", subject: "system:serviceaccount:shop:{name}", scopes: [%s]}
`, ordersAPI, ordersScope, edAPI, edScope, rsaAPI, rsaScope, loadClient, l.secret, ordersScope, edScope, rsaScope, adminClient, l.secret,
		keyedClient, keys, ordersScope, elsewhere, jwstest.Set(cluster), anyReplica, elsewhere, ordersScope)
	return l, errors.Join(l.write("manifest.yaml", []byte(manifest)), l.write(tokenFile, []byte(workload)),
		l.write("kek", []byte(base64.StdEncoding.EncodeToString(kek))), local.Certify(l.path("cert.pem"), l.path("key.pem")))
}

// build builds a package into the file name of the lab.
func (l *lab) build(ctx context.Context, name, pkg string, flags ...string) error {
	args := append([]string{"build"}, flags...)
	_, err := local.Output(ctx, os.Environ(), "go", append(args, "-o", l.path(name), pkg)...)
	return err
}

func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) write(name string, content []byte) error {
	return os.WriteFile(l.path(name), content, 0o600)
}

// profilePath is the path of a CPU profile below the URL of a port that serves profiles.
const profilePath = "/debug/pprof/profile"

// server is a process that answers calls. url is the URL of the issuer, and grpc the address of its gRPC port.
type server struct {
	*local.Process

	url, grpc string
	// profiles is the URL of its CPU profile.
	profiles string
}

// store is a running Redis.
type store struct {
	*local.Process

	port   string
	client *redis.Client
}

func (s *store) stop() {
	_ = s.client.Close()
	s.Stop()
}

// redis starts a Redis that keeps nothing on disk, so that the disk is not measured.
func (l *lab) redis(ctx context.Context) (*store, error) {
	ports, err := local.FreePorts(1)
	if err != nil {
		return nil, err
	}
	p, err := local.Start(ctx, l.env, nil, "redis-server", "--port", ports[0], "--bind", "127.0.0.1", "--dir", l.dir,
		"--save", "", "--appendonly", "no", "--loglevel", "warning")
	if err != nil {
		return nil, err
	}
	s := &store{p, ports[0], redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + ports[0]})}
	err = p.Await(ctx, func(ctx context.Context) error { return s.client.Ping(ctx).Err() })
	if err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

// setup is how an issuer differs from the default.
type setup struct {
	tls   bool
	env   []string
	flags []string
}

// issuer starts an issuer and returns when it is ready.
func (l *lab) issuer(ctx context.Context, on *store, s setup) (*server, error) {
	i, ready, err := l.beginIssuer(ctx, on, s)
	if err != nil {
		return nil, err
	}
	err = i.Await(ctx, func(ctx context.Context) error { return getReady(ctx, ready) })
	if err != nil {
		i.Stop()
		return nil, err
	}
	return i, nil
}

// beginIssuer starts an issuer and returns it with the URL of its readiness check.
func (l *lab) beginIssuer(ctx context.Context, on *store, s setup) (*server, string, error) {
	ports, err := local.FreePorts(3)
	if err != nil {
		return nil, "", err
	}
	scheme := "http"
	args := []string{
		"serve", "--redis", "redis://localhost:" + on.port, "--key-encryption-key-file", l.path("kek"),
		"--apply", l.path("manifest.yaml"), "--signing-algorithms", "ES256,RS256,EdDSA", "--log-level", "warn", "--shutdown-delay", "0s", "--profiling",
		"--http-listen", "localhost:" + ports[0], "--grpc-listen", "localhost:" + ports[1], "--ops-listen", "localhost:" + ports[2],
	}
	if s.tls {
		scheme, args = "https", append(args, "--tls-cert-file", l.path("cert.pem"), "--tls-key-file", l.path("key.pem"))
	}
	url := scheme + "://localhost:" + ports[0]
	args = append(append(args, "--issuer", url), s.flags...)
	p, err := local.Start(ctx, slices.Concat(l.env, s.env), nil, l.path("grantor"), args...)
	if err != nil {
		return nil, "", err
	}
	operations := "http://localhost:" + ports[2]
	return &server{p, url, "localhost:" + ports[1], operations + profilePath}, operations + "/readyz", nil
}

// yardstick starts the yardstick with the work of each call, which may write to a Redis. env is added to its environment.
func (l *lab) yardstick(ctx context.Context, on *store, work string, env []string) (*server, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = read.Close() }()
	p, err := local.Start(ctx, slices.Concat(l.env, env), write, l.path("yardstick"), "-work", work, "-scope", ordersScope, "-redis", "127.0.0.1:"+on.port)
	_ = write.Close()
	if err != nil {
		return nil, err
	}
	s := &server{Process: p}
	if _, err := fmt.Fscanln(read, &s.url, &s.grpc); err != nil {
		p.Stop()
		return nil, fmt.Errorf("the yardstick printed no addresses: %w", err)
	}
	s.profiles = s.url + profilePath
	return s, nil
}
