package serve

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/alicebob/miniredis/v2"

	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/service/keys"
)

// developmentYAML registers the only client of development mode.
//
//go:embed dev.yaml
var developmentYAML []byte

// develop adjusts the settings to development mode: all ports on loopback, and no delay at the end. It keeps what was
// set explicitly.
func (s *Settings) develop() {
	for _, address := range []*string{&s.httpListen, &s.grpcListen, &s.opsListen} {
		if strings.HasPrefix(*address, ":") {
			*address = "127.0.0.1" + *address
		}
	}
	if s.shutdownDelay == defaultShutdownDelay {
		s.shutdownDelay = 0 // the person who presses Ctrl-C is the only client
	}
}

// realRedis reports whether the Redis outlives the process.
func (s *Settings) realRedis() bool {
	return s.Redis != "" && !strings.HasSuffix(s.Redis, embeddedMark)
}

// embeddedMark is a URL parameter that marks the embedded Redis; go-redis shows it in CLIENT LIST.
const embeddedMark = "?client_name=embedded"

// embeddedRedis starts a Redis in this process, on a free port of loopback.
func embeddedRedis() (url string, stop func(), err error) {
	redis := miniredis.NewMiniRedis()
	if err := redis.Start(); err != nil {
		return "", nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	return "redis://" + redis.Addr() + embeddedMark, redis.Close, nil
}

// developmentSealer seals with a key that is public. Nothing in the embedded Redis outlives the process; with a real
// Redis, the log warns about it.
func developmentSealer() (*keys.Sealer, error) {
	return keys.NewSealer([]byte("grantor development: not secret!"))
}

func developmentManifest() (*manifest.File, error) {
	return manifest.Parse("dev.yaml", developmentYAML)
}

// introduce prints how to try the issuer.
func (srv *Server) introduce() {
	httpPort, grpcPort := srv.ports.HTTPAddr(), srv.ports.GRPCAddr()
	kept := "nothing is kept when it stops"
	if srv.settings.realRedis() {
		kept = "what it keeps is in the Redis that was given"
	}
	security, plaintext, insecure := "plaintext", "-plaintext ", ""
	if srv.scheme() == "https" {
		security, plaintext, insecure = "TLS", "-insecure ", "-k "
	}
	local := strings.NewReplacer("127.0.0.1", "localhost", "[::1]", "localhost").Replace
	_, _ = fmt.Fprintf(srv.out, `Grantor in development mode: loopback, %[5]s, one client; %[1]s.

  REST    %[6]s://%[2]s
  gRPC    %[3]s
  health  http://%[4]s/readyz

A token over REST:

  curl %[8]s-d 'grant_type=client_credentials&client_id=background-service&client_secret=service-secret-here&scope=api1' %[6]s://%[2]s/connect/token

A token over gRPC:

  grpcurl %[7]s-d '{"grant_type":"client_credentials","client_id":"background-service","client_secret":"service-secret-here","scope":"api1"}' %[3]s grantor.v1.TokenService/IssueToken

`, kept, local(httpPort), local(grpcPort), local(srv.ports.OpsAddr()), security, srv.scheme(), plaintext, insecure)
}
