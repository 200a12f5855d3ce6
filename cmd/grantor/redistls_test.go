package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

// strictRedis is a Redis that is reached by TLS with a certificate of an authority alone (tls-auth-clients yes).
type strictRedis struct {
	*redistest.Server
	authority *servetest.Authority
	// ca is the file of the authority, cert and key are those of the server; port is that for TLS.
	ca, cert, key, port string
}

func newStrictRedis(t *testing.T, args ...string) *strictRedis {
	t.Helper()
	r := &strictRedis{authority: servetest.NewAuthority(t)}
	r.ca = servetest.WriteFile(t, "ca.pem", string(r.authority.PEM))
	r.cert, r.key = r.authority.WriteLeaf(t, t.TempDir(), 2)
	_, r.port, _ = net.SplitHostPort(freeport.Address(t))
	r.Server = redistest.New(t, append(r.serverArgs(r.port), args...)...)
	return r
}

// serverArgs returns the arguments of a redis-server with the certificate that accepts TLS on the port.
func (r *strictRedis) serverArgs(port string) []string {
	return []string{
		"--tls-port", port, "--tls-cert-file", r.cert, "--tls-key-file", r.key, "--tls-ca-cert-file", r.ca, "--tls-auth-clients", "yes",
	}
}

// args returns the arguments of a command for this Redis, with the certificate that is in dir.
func (r *strictRedis) args(dir, parameters string) []string {
	return []string{
		"--redis=rediss://localhost:" + r.port + parameters, "--redis-tls-ca-file=" + r.ca,
		"--redis-tls-cert-file=" + filepath.Join(dir, "cert.pem"), "--redis-tls-key-file=" + filepath.Join(dir, "key.pem"),
	}
}

// TestRedisClientCertificate runs each command that opens Redis with one that requires a client certificate: with it, without
// it, and with one of another authority.
func TestRedisClientCertificate(t *testing.T) {
	t.Parallel()
	r := newStrictRedis(t)
	dir, strange := t.TempDir(), t.TempDir()
	r.authority.WriteLeaf(t, dir, 3)
	servetest.NewAuthority(t).WriteLeaf(t, strange, 4)
	kek := "--key-encryption-key-file=" + servetest.KEKFile(t)
	file := servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	for _, command := range [][]string{{"apply", kek, "-f", file}, {"audit"}} {
		run(t, append(command, r.args(dir, "")...)...).Works(t)
		run(t, append(command, r.args(strange, "")...)...).Fails(t, "redis: ")
		run(t, append(command, r.args(dir, "")[:2]...)...).Fails(t, "redis: ")
	}
	if out := run(t, append([]string{"doctor"}, r.args(dir, "")...)...).Out; strings.Contains(out, "redis.reach") {
		t.Errorf("doctor:\n%s", out)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--redis-tls-cert-file=" + filepath.Join(dir, "cert.pem")}, "redis-tls-cert-file: set it together with redis-tls-key-file"},
		{[]string{"--redis-tls-cert-file=" + filepath.Join(dir, "cert.pem"), "--redis-tls-key-file=" + filepath.Join(strange, "key.pem")}, filepath.Join(strange, "key.pem") + ": tls: private key does not match"},
		{[]string{"--redis-tls-ca-file=" + file}, file + " has no PEM certificate"},
		{[]string{"--redis=" + r.URL()}, "redis: the files of redis-tls-cert-file and redis-tls-ca-file need TLS"},
	} {
		for _, command := range [][]string{{"apply", kek, "-f", file}, {"audit"}, {"doctor"}, {"serve", kek, "--issuer=https://localhost", "--http-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"}} {
			args := r.args(dir, "")[:2]
			run(t, append(append(command, args...), c.args...)...).Exits(t, cli.ExitUsage, c.want)
		}
	}
}

// TestRedisCertificateRotates renews the certificate that a replica presents to the Redis, under traffic: the Redis ends all
// connections and accepts the authority of the second certificate alone.
func TestRedisCertificateRotates(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (*strictRedis, string){
		"one server": func(t *testing.T) (*strictRedis, string) { return newStrictRedis(t), "" },
		"Cluster": func(t *testing.T) (*strictRedis, string) {
			_, bus, _ := net.SplitHostPort(freeport.Address(t))
			r := newStrictRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--tls-cluster", "yes")
			must.Succeed(t, r.Client().ClusterAddSlotsRange(t.Context(), 0, 16383).Err())
			must.Eventually(t, "the Cluster is up", func() bool {
				return strings.Contains(r.Client().ClusterInfo(t.Context()).Val(), "cluster_state:ok")
			})
			return r, "?cluster=true"
		},
		"Sentinel": func(t *testing.T) (*strictRedis, string) {
			r := newStrictRedis(t)
			_, port, _ := net.SplitHostPort(freeport.Address(t))
			sentinel := redistest.New(t, append(r.serverArgs(port), "--sentinel", "--tls-replication", "yes")...)
			must.Succeed(t, sentinel.Client().Do(t.Context(), "SENTINEL", "MONITOR", "m", "127.0.0.1", r.port, 1).Err())
			return r, "?master_name=m&addr=localhost:" + port
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, parameters := start(t)
			testRedisCertificateRotates(t, r, parameters)
		})
	}
}

func testRedisCertificateRotates(t *testing.T, r *strictRedis, parameters string) {
	dir, second := t.TempDir(), servetest.NewAuthority(t)
	r.authority.WriteLeaf(t, dir, 3)
	replica := servetest.Start(t, append(r.args(dir, parameters), "--key-encryption-key-file="+servetest.KEKFile(t), "--max-staleness=5s",
		"--issuer=http://"+freeport.Address(t), "--apply="+servetest.WriteFile(t, "clients.yaml", servetest.Manifest))...)
	ctx, stop := context.WithCancel(t.Context())
	var traffic sync.WaitGroup
	traffic.Go(func() {
		for ctx.Err() == nil {
			replica.Token(t)
		}
	})
	second.WriteLeaf(t, dir, 4)
	only := servetest.WriteFile(t, "second.pem", string(second.PEM))
	must.Succeed(t, r.Client().ConfigSet(t.Context(), "tls-ca-cert-file", only).Err())
	must.Succeed(t, r.Client().ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
	<-time.After(6 * time.Second) // what was known before is stale by now
	if status, text := servetest.Get(t, "http://"+replica.OpsAddr()+"/readyz"); status != http.StatusOK {
		t.Errorf("with the new certificate: got %d %s", status, text)
	}
	if !strings.Contains(replica.Log.String(), "loaded the changed TLS files") {
		t.Errorf("the log does not name the change:\n%s", replica.Log.String())
	}
	stop()
	traffic.Wait()
}
