package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/grantorhq/grantor/tools/figures"
	"github.com/grantorhq/grantor/tools/local"
)

// throughEnvoy has the Envoys that are compared, and a token.
type throughEnvoy struct {
	*lab

	token              string
	guard, empty, jwts *envoy
	processes          []*local.Process
}

func (t *throughEnvoy) stop() {
	for _, p := range t.processes {
		p.Stop()
	}
}

// measureGuard measures requests through Envoy that the guard admits, beside an Envoy that asks a server which admits
// all, and one that checks the token itself.
func measureGuard(ctx context.Context, l *lab) (*findings, error) {
	f := &findings{title: "The guard behind Envoy", notes: "guard"}
	t := &throughEnvoy{lab: l}
	defer t.stop()
	err := t.start(ctx)
	if errors.Is(err, errNoEnvoy) {
		progressf("guard: %v", err)
		f.add("Not measured: "+err.Error()+".", nil)
		return f, nil
	}
	if err != nil {
		return nil, err
	}
	progressf("requests through Envoy")
	c, err := t.compareEnvoys(ctx, l.rounds, t.guard, t.empty)
	if err != nil {
		return nil, err
	}
	own, err := t.compareEnvoys(ctx, l.infoRounds(), t.guard, t.jwts)
	if err != nil {
		return nil, err
	}
	f.judgeSpread("requests through Envoy with the guard", "with a server that admits all", atLeast(0.90), c.ratio, 3, "")
	table := figures.NewTable("Envoy with the guard", "Against", "Ratio", "requests/s", "Other, requests/s", "CPU of the server that is asked per request, µs", "Other's", "Median and 99 %, ms", "Other's")
	for _, row := range []struct {
		against string
		c       *comparison
	}{{"ext_authz with a server that admits all", c}, {"its own filter jwt_authn, which knows no revocations; the CPU is that of the issuer", own}} {
		table.Add("ext_authz, a token seen before", row.against, row.c.ratio.Text("%.2f"), figures.Count(row.c.subject.perSecond.Median), figures.Count(row.c.floor.perSecond.Median),
			fmt.Sprintf("%.0f", row.c.subject.cpu.Median), fmt.Sprintf("%.0f", row.c.floor.cpu.Median), row.c.subject.latencies(), row.c.floor.latencies())
	}
	f.add("", table)
	return f, nil
}

// start starts an issuer, a guard, a yardstick and the Envoys that ask them.
func (t *throughEnvoy) start(ctx context.Context) error {
	on, err := t.redis(ctx)
	if err != nil {
		return err
	}
	t.processes = append(t.processes, on.Process)
	issuer, err := t.issuer(ctx, on, setup{})
	if err != nil {
		return err
	}
	t.processes = append(t.processes, issuer.Process)
	yardstick, err := t.yardstick(ctx, on, "ext_authz", nil)
	if err != nil {
		return err
	}
	t.processes = append(t.processes, yardstick.Process)
	guard, err := t.lab.guard(ctx, issuer, nil)
	if err != nil {
		return err
	}
	t.processes = append(t.processes, guard.Process)
	token, err := os.ReadFile(t.path(guardTokenFile))
	if err != nil {
		return err
	}
	t.token = string(token)
	for _, e := range []struct {
		into                  **envoy
		filter, options, port string
		asked                 *local.Process
	}{
		{&t.guard, extAuthz, overHTTP2, portOf(guard.url), guard.Process},
		{&t.empty, extAuthz, overHTTP2, portOf("http://" + yardstick.grpc), yardstick.Process},
		{&t.jwts, fmt.Sprintf(jwtAuthn, issuer.url), "", portOf(issuer.url), issuer.Process},
	} {
		if *e.into, err = t.envoy(ctx, e.filter, e.options, e.port, e.asked); err != nil {
			return err
		}
		t.processes = append(t.processes, (*e.into).Process)
	}
	return nil
}

// guardTokenFile is the file of the lab with a token that the guard started last admits.
const guardTokenFile = "guarded.jwt"

// guard starts a guard and returns it when it is ready, with a token in guardTokenFile. env is added to its environment.
func (l *lab) guard(ctx context.Context, issuer *server, env []string) (*server, error) {
	tokens, err := l.issueTokens(ctx, issuer, 1)
	if err != nil {
		return nil, err
	}
	const rules = "rules:\n  - {path: \"/orders/{id}\", methods: [GET], scopes: [" + ordersScope + "]}\n"
	if err := errors.Join(l.write("rules.yaml", []byte(rules)), l.write(guardTokenFile, []byte(tokens[0]))); err != nil {
		return nil, err
	}
	ports, err := local.FreePorts(2)
	if err != nil {
		return nil, err
	}
	address, operations := "localhost:"+ports[0], "http://localhost:"+ports[1]
	p, err := local.Start(ctx, slices.Concat(l.env, env), nil, l.path("grantor"), "guard", "--issuer", issuer.url, "--audience", ordersAPI, "--rules", l.path("rules.yaml"),
		"--grpc-listen", address, "--ops-listen", "localhost:"+ports[1], "--log-level", "warn", "--shutdown-delay", "0s", "--profiling")
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, func(ctx context.Context) error { return getReady(ctx, operations+"/readyz") }); err != nil {
		p.Stop()
		return nil, err
	}
	return &server{p, "http://" + address, address, operations + profilePath}, nil
}

// compareEnvoys puts the load on two Envoys one after the other, in alternating order from round to round.
func (t *throughEnvoy) compareEnvoys(ctx context.Context, rounds int, subject, floor *envoy) (*comparison, error) {
	return compareLoads(rounds, func(i int) (*loadResult, error) { return []*envoy{subject, floor}[i].load(ctx, t.settings, t.token) })
}

// getReady returns an error unless the URL answers 200.
func getReady(ctx context.Context, ready string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, ready, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", ready, answer.Status)
	}
	return nil
}

// portOf returns the port of a URL that the lab made.
func portOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	_, port, _ := net.SplitHostPort(u.Host)
	return port
}
