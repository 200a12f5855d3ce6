package serve

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jwks"
)

// introduce prints how to try the issuer.
func (srv *Server) introduce(ctx context.Context) {
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

%[9]s`, kept, local(httpPort), local(grpcPort), local(srv.ports.OpsAddr()), security, srv.scheme(), plaintext, insecure, srv.keyExample(ctx))
}

// developmentKey is a key of the client of development mode. The zero value is none.
type developmentKey struct {
	// path is that of the private key, set has the public one.
	path string
	set  jwks.Document
}

// makeDevelopmentKey adds a key to the client of development mode, beside its secret. The key lives as long as the process: one
// that is in every copy of the program would be a public secret. A Redis that outlives the process gets none. Without a
// directory for temporary files, as in some containers, there is none either.
func (srv *Server) makeDevelopmentKey(m *manifest.File) error {
	if srv.settings.realRedis() || len(m.Clients) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp("", "grantor-dev-")
	if err != nil {
		srv.log.Debug("the client of development mode has no private key", "cause", err)
		return nil
	}
	srv.releases = append(srv.releases, func() { _ = os.RemoveAll(dir) })
	client := &m.Clients[0].Client
	path := filepath.Join(dir, client.ID.String()+".pem")
	key, err := clientassertion.WriteNewKey(path)
	if err != nil {
		return fmt.Errorf("a private key for development mode: %w", err)
	}
	client.Keys, err = jwks.NewDocument(key)
	srv.devKey = developmentKey{path, client.Keys}
	return err
}

// keyExample returns a command that gets a token by the key of development mode. It is empty if there is no key, if the file
// of the setting apply sets another one for the client, or if the command would have to trust a certificate that it does not
// know.
func (srv *Server) keyExample(ctx context.Context) string {
	m, err := developmentManifest()
	if err != nil || srv.devKey.path == "" || srv.scheme() == "https" {
		return ""
	}
	issuer, err := srv.Issuer()
	if err != nil {
		return ""
	}
	client, err := srv.service.Editor().Client(ctx, m.Clients[0].ID)
	if err != nil || client.Keys.String() != srv.devKey.set.String() {
		return ""
	}
	return fmt.Sprintf(`A token with a private key instead of a secret:

  %s token issue --issuer %s --client-id %s --private-key-file %s --scope api1

`, cli.Printable(os.Args[0]), issuer, client.ID, srv.devKey.path)
}
