package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// errNoEnvoy reports that this machine has no Envoy, so that nothing is measured through it.
var errNoEnvoy = errors.New("there is no envoy on the PATH: tools/install-for-tests installs it")

// envoyConfig is a configuration of Envoy that answers every request which its first filter admits. Its verbs are the
// port, the filter, the options of the cluster that the filter asks, and the port of that cluster.
const envoyConfig = `static_resources:
  listeners:
    - address: {socket_address: {address: 127.0.0.1, port_value: %s}}
      filter_chains:
        - filters:
            - name: http
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: callers
                normalize_path: true
                path_with_escaped_slashes_action: REJECT_REQUEST
                common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
                http_filters:
                  - %s
                  - {name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
                route_config:
                  virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: ok}}}]}]
  clusters: [{name: asked, connect_timeout: 1s, %s
    load_assignment: {cluster_name: asked, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]}}]
`

// The first filter, and the options of the cluster that it asks.
const (
	extAuthz = `{name: guard, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz,
                      transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: asked}, timeout: 5s}, failure_mode_allow: false, encode_raw_headers: true}}`
	overHTTP2 = `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {
      "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}},`
	jwtAuthn = `{name: jwt, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication,
                      providers: {grantor: {issuer: "%[1]s", audiences: ["` + ordersAPI + `"], remote_jwks: {http_uri: {uri: "%[1]s/.well-known/jwks.json", cluster: asked, timeout: 5s}, async_fetch: {}}}},
                      rules: [{match: {prefix: /}, requires: {provider_name: grantor}}]}}`
)

// envoy is a running Envoy. asked is the server that its filter asks, whose processor time counts with the requests.
type envoy struct {
	*local.Process

	address string
	asked   *local.Process
}

// envoy starts an Envoy with one thread that asks the port of a server.
func (l *lab) envoy(ctx context.Context, filter, options, port string, asked *local.Process) (*envoy, error) {
	path, err := exec.LookPath("envoy")
	if err != nil {
		return nil, errNoEnvoy
	}
	ports, err := local.FreePorts(1)
	if err != nil {
		return nil, err
	}
	name := "envoy-" + ports[0] + ".yaml"
	if err := l.write(name, fmt.Appendf(nil, envoyConfig, ports[0], filter, options, port)); err != nil {
		return nil, err
	}
	p, err := local.Start(ctx, l.env, nil, path, "-c", l.path(name), "--use-dynamic-base-id", "--concurrency", "1", "-l", "error")
	if err != nil {
		return nil, err
	}
	e := &envoy{p, "127.0.0.1:" + ports[0], asked}
	if err := p.Await(ctx, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.address)
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		p.Stop()
		return nil, err
	}
	return e, nil
}

// envoyConnections is the number of connections, each with one request in flight.
const envoyConnections = 64

// load sends requests with a token through Envoy and returns the number per second, the latencies, and the processor
// time of the server that Envoy asks. A request that is not admitted is an error.
func (e *envoy) load(ctx context.Context, s *settings, token string) (*loadResult, error) {
	request := []byte("GET /orders/1 HTTP/1.1\r\nHost: orders.example.com\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	began := time.Now()
	measured, end := began.Add(s.warmUp), began.Add(s.warmUp+s.duration)
	before, err := e.asked.CPU()
	if err != nil {
		return nil, err
	}
	latencies, failures := make([][]float64, envoyConnections), make([]error, envoyConnections)
	calls := make([]int64, envoyConnections)
	var sending sync.WaitGroup
	for i := range envoyConnections {
		sending.Go(func() {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.address)
			if err != nil {
				failures[i] = err
				return
			}
			defer func() { _ = conn.Close() }()
			in := bufio.NewReader(conn)
			for sent := time.Now(); sent.Before(end) && ctx.Err() == nil; sent = time.Now() {
				if failures[i] = exchange(conn, in, request); failures[i] != nil {
					return
				}
				calls[i]++
				if sent.After(measured) {
					latencies[i] = append(latencies[i], float64(time.Since(sent).Microseconds())/1000)
				}
			}
		})
	}
	sending.Wait()
	after, err := e.asked.CPU()
	if err := errors.Join(errors.Join(failures...), err); err != nil {
		return nil, err
	}
	all, total := slices.Concat(latencies...), int64(0)
	for _, n := range calls {
		total += n
	}
	m := &loadResult{Calls: int64(len(all)), PerSecond: float64(len(all)) / s.duration.Seconds(), cpu: (after - before) / time.Duration(max(total, 1))}
	m.Latency.P50, m.Latency.P99 = figures.Percentile(all, 50), figures.Percentile(all, 99)
	return m, m.check()
}

// exchange sends a request and reads the response, which must be 200.
func exchange(conn net.Conn, in *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	length := 0
	for first := true; ; first = false {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		if first && !strings.HasPrefix(line, "HTTP/1.1 200 ") {
			return fmt.Errorf("got %q", line)
		}
		if value, ok := strings.CutPrefix(line, "content-length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
		if line == "\r\n" {
			_, err := in.Discard(length)
			return err
		}
	}
}
