package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/grantorhq/grantor/tools/local"
)

// deployment is a Redis, two replicas of one issuer and a Prometheus that scrapes them.
type deployment struct {
	dir        string
	prometheus string
	issuer     string
	replicas   []string
	redisPort  string
	processes  []*exec.Cmd
}

// startDeployment starts the processes and returns when all of them serve. If it fails, it leaves none running.
func startDeployment(ctx context.Context, dir string) (_ *deployment, err error) {
	ports, err := local.FreePorts(8)
	if err != nil {
		return nil, err
	}
	d := &deployment{
		dir: dir, redisPort: ports[6], prometheus: "http://localhost:" + ports[7], issuer: "https://localhost:" + ports[0],
	}
	defer func() {
		if err != nil {
			d.stop()
		}
	}()
	if err := d.writeFiles(ports[2], ports[5]); err != nil {
		return nil, err
	}
	binary, err := build(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := d.startRedis(ctx); err != nil {
		return nil, err
	}
	for i := range 2 {
		if err := d.startReplica(ctx, binary, ports[3*i:3*i+3]); err != nil {
			return nil, err
		}
	}
	if err := d.start(ctx, "prometheus", "--config.file="+d.path("prometheus.yml"), "--storage.tsdb.path="+d.path("data"),
		"--web.listen-address=localhost:"+ports[7], "--log.level=error"); err != nil {
		return nil, err
	}
	return d, awaitOK(ctx, d.prometheus+"/-/ready")
}

// writeFiles writes the certificate, the clients file, the key-encryption key and the configuration of Prometheus.
func (d *deployment) writeFiles(opsPorts ...string) error {
	prometheus := fmt.Sprintf(`global: {scrape_interval: %s}
scrape_configs: [{job_name: grantor, static_configs: [{targets: ["localhost:%s", "localhost:%s"]}]}]
`, step, opsPorts[0], opsPorts[1])
	return errors.Join(local.Certify(d.path("cert.pem"), d.path("key.pem")), writeClients(d.dir),
		os.WriteFile(d.path("prometheus.yml"), []byte(prometheus), 0o600))
}

// build builds the grantor binary into dir and returns its path.
func build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "grantor")
	command := exec.CommandContext(ctx, "go", "build", "-o", binary, ".") //nolint:gosec // a temporary folder
	command.Dir, command.Stderr = filepath.Join(root, "cmd/grantor"), os.Stderr
	return binary, command.Run()
}

// startReplica starts a replica on the ports for REST, gRPC and operations, and returns when it is ready.
func (d *deployment) startReplica(ctx context.Context, binary string, ports []string) error {
	d.replicas = append(d.replicas, "https://localhost:"+ports[0])
	err := d.start(ctx, binary, "serve", "--issuer", d.issuer, "--redis", "redis://localhost:"+d.redisPort,
		"--key-encryption-key-file", d.path("kek"), "--apply", d.path("clients.yaml"), "--max-staleness", "5s",
		"--tls-cert-file", d.path("cert.pem"), "--tls-key-file", d.path("key.pem"),
		"--http-listen", "localhost:"+ports[0], "--grpc-listen", "localhost:"+ports[1], "--ops-listen", "localhost:"+ports[2],
		"--log-level", "error")
	if err != nil {
		return err
	}
	return awaitOK(ctx, "http://localhost:"+ports[2]+"/readyz")
}

func (d *deployment) startRedis(ctx context.Context) error {
	return d.start(ctx, "redis-server", "--port", d.redisPort, "--dir", d.dir, "--appendonly", "yes", "--save", "", "--loglevel", "warning")
}

// stopRedis stops the Redis, which is the first process that was started.
func (d *deployment) stopRedis() {
	redis := d.processes[0]
	_ = redis.Process.Signal(os.Interrupt)
	_ = redis.Wait()
}

func (d *deployment) path(name string) string { return filepath.Join(d.dir, name) }

// start starts a program that runs until stop is called or ctx is done.
func (d *deployment) start(ctx context.Context, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...) //nolint:gosec // grantor, redis-server or prometheus with fixed arguments
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	d.processes = append(d.processes, c)
	return c.Start()
}

func (d *deployment) stop() {
	for _, c := range d.processes {
		if c.Process != nil {
			_ = c.Process.Signal(os.Interrupt)
			_ = c.Wait()
		}
	}
}

// client returns an HTTP client that trusts the certificate of the replicas.
func (d *deployment) client() (*http.Client, error) {
	trust, err := trustFile(d.path("cert.pem"))
	if err != nil {
		return nil, err
	}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: trust, MaxIdleConnsPerHost: 64}}, nil
}

// trustFile returns the configuration of a TLS client that trusts the certificates of a PEM file.
func trustFile(path string) (*tls.Config, error) {
	certificates, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificates)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}

// awaitOK waits up to a minute until the URL answers with status 200.
func awaitOK(ctx context.Context, url string) error {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline) && ctx.Err() == nil; {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(request); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return fmt.Errorf("%s does not answer with status 200", url)
}

// sleep pauses for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
