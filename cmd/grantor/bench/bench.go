// Package bench implements grantor bench, which puts load on a running issuer and measures it.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/cmd/grantor/tokens"
)

// options are the settings and flags of grantor bench.
type options struct {
	*tokens.Settings
	load load
	// clients is a file of clients that make the calls in turn; without one, the client of the connection makes them.
	clients string
	// grpcEndpoint is the gRPC port of one replica, which replaces the one in the issuer's metadata.
	grpcEndpoint string
	quiet        bool
}

// NewCommand returns grantor bench. Its file of settings may also have the settings in shared.
func NewCommand(shared settings.Names) *cobra.Command {
	s := &options{Settings: tokens.NewSettings(shared)}
	cmd := &cobra.Command{
		Use:   "bench [issue | introspect]",
		Short: "Put load on a running issuer and measure it",
		Long: `Put load on a running issuer, and measure how many calls it answers per second and how long they take. issue, the default,
requests tokens; introspect inspects tokens that it requested before.

Without --rate the loop is closed: --in-flight calls are in flight at any time, and a slow response delays the next call.
With --rate the loop is open: calls are due at fixed times, and the latency of each is measured from the time it was due,
including the wait for a place in flight. A server that stalls for a second thus shows in the figures of all calls of that
second, which a closed loop would miss (coordinated omission). Calls in flight at the end are not counted as answered; their
number and the age of the oldest are reported separately.

The load is real: tokens are signed, audited and counted. Give a --rate against a production issuer. The client needs
processor time too; run it on its own machine to find the limit of a server.`,
		Example: `  grantor bench --client-id background-service --scope api1 --duration 10s
  grantor bench introspect --wire rest --rate 500 -o json`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{operationIssue, operationIntrospect},
		PreRunE:   s.Prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.load.Operation = operationIssue
			if len(args) > 0 {
				s.load.Operation = args[0]
			}
			return s.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.AddFlagSet(s.Flags)
	flags.StringVar(&s.load.Wire, "wire", wireGRPC, "`transport` of the calls: grpc or rest")
	flags.IntVar(&s.load.Connections, "connections", 4, "`number` of connections, at most 10,000; over HTTP/1.1 each call in flight needs its own")
	flags.IntVar(&s.load.InFlight, "in-flight", 64, "maximum number of `calls` in flight, at most 10,000")
	flags.Float64Var(&s.load.Rate, "rate", 0, "`calls` per second, 0.001 to 1,000,000; 0: as many as are answered")
	flags.DurationVar(&s.load.Duration, "duration", 10*time.Second, "`time` that is measured")
	flags.DurationVar(&s.load.WarmUp, "warm-up", 2*time.Second, "`time` before it")
	flags.Int64Var(&s.load.Calls, "calls", 0, "`number` of calls, including the warm-up, after which the load ends early; 0 for no limit")
	flags.StringSliceVar(&s.load.Scopes, "scope", nil, "`scope` of the tokens; can be repeated. Default: the client's default scopes")
	flags.StringSliceVar(&s.load.Resources, "resource", nil, "`URI` of a resource that the tokens are for, whose algorithm signs them; can be repeated")
	flags.IntVar(&s.load.Tokens, "tokens", 64, "`number` of tokens that introspect inspects in turn, at most 10,000")
	flags.StringVar(&s.clients, "clients", "", "`file` with clients that request tokens in turn: one per line, with its id, a space and its secret. Not for introspect")
	flags.StringVar(&s.grpcEndpoint, "grpc-endpoint", "", "`host:port` of the gRPC port of one replica, only with --wire grpc. Default: the one in the issuer's metadata")
	flags.BoolVarP(&s.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

// run discovers the issuer, runs the load and prints the result.
func (s *options) run(cmd *cobra.Command) error {
	if err := s.check(); err != nil {
		return err
	}
	callers, err := s.callers(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), remote.Timeout)
	defer cancel()
	client, err := remote.Dial(ctx, s.Issuer, callers[0])
	if err != nil {
		return err
	}
	defer client.Close()
	if s.grpcEndpoint != "" {
		client.Metadata.GRPCEndpoint = s.grpcEndpoint
	}
	target, err := s.load.reach(cmd.Context(), client, callers)
	if err != nil {
		return err
	}
	defer target.Close()
	progress := func(string) {}
	if !s.quiet {
		progress = func(line string) { _, _ = fmt.Fprintln(cmd.ErrOrStderr(), line) }
	}
	result := s.load.run(cmd.Context(), target, progress)
	if s.Output == "json" {
		err = result.writeJSON(cmd.OutOrStdout())
	} else {
		err = result.writeText(cmd.OutOrStdout())
	}
	switch {
	case err != nil || result.Calls > 0:
		return err
	case s.load.Calls > 0 && len(result.Failures) == 0:
		return errors.New("no call was left after the warm-up; give a shorter --warm-up")
	}
	return errors.New("no call was answered")
}

// maxClients bounds the file of clients, in bytes. A million clients with generated secrets take 71 MB.
const maxClients = 256 << 20

// callers returns the clients that make the calls: those of the file, or the one of the connection.
func (s *options) callers(cmd *cobra.Command) ([]remote.Credentials, error) {
	if s.clients == "" {
		own, err := s.Credentials(cmd)
		return []remote.Credentials{own}, err
	}
	method, err := s.AuthMethod()
	if err != nil {
		return nil, err
	}
	prover, err := s.Prover()
	if err != nil {
		return nil, err
	}
	content, err := cli.ReadFile(s.clients, maxClients)
	if err != nil {
		return nil, cli.SettingError("clients", err)
	}
	var callers []remote.Credentials
	number := 0
	for line := range strings.Lines(string(content)) {
		number++
		id, secret, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || id == "" || strings.ContainsRune(secret, ' ') {
			return nil, cli.SettingError("clients", fmt.Errorf("line %d is not an id, a space and a secret", number))
		}
		callers = append(callers, remote.Credentials{ID: id, Secret: secret, Method: method, DPoP: prover})
	}
	if len(callers) == 0 {
		return nil, cli.SettingError("clients", errors.New("the file has no client"))
	}
	return callers, remote.CheckIssuer(s.Issuer)
}

// check validates the settings.
func (s *options) check() error {
	if s.clients != "" && s.load.Operation == operationIntrospect {
		return cli.SettingError("clients", errors.New("only issue uses several clients; introspect uses one"))
	}
	if s.grpcEndpoint != "" {
		if s.load.Wire == wireREST {
			return cli.SettingError("grpc-endpoint", errors.New("has no meaning with --wire rest"))
		}
		if _, _, err := net.SplitHostPort(s.grpcEndpoint); err != nil {
			return cli.SettingError("grpc-endpoint", fmt.Errorf("%.200q is not host:port", s.grpcEndpoint))
		}
	}
	return s.load.check()
}

// The bounds of the settings: what one client program can have in flight, and the rate of an open loop.
const (
	maxConcurrency   = 10_000
	minRate, maxRate = 0.001, 1_000_000
)

func (l *load) check() error {
	if err := cli.OneOf(l.Wire, wireGRPC, wireREST); err != nil {
		return cli.SettingError("wire", err)
	}
	switch {
	case min(l.Connections, l.InFlight, l.Tokens) < 1 || max(l.Connections, l.InFlight, l.Tokens) > maxConcurrency:
		return cli.SettingError("connections, in-flight, tokens", fmt.Errorf("each must be from 1 to %d", maxConcurrency))
	case math.IsNaN(l.Rate) || l.Rate != 0 && (l.Rate < minRate || l.Rate > maxRate):
		return cli.SettingError("rate", fmt.Errorf("%g is neither 0 nor from %g to %d", l.Rate, minRate, maxRate))
	case l.Duration <= 0 || l.WarmUp < 0 || l.Calls < 0:
		return cli.SettingError("duration, warm-up, calls", errors.New("must not be negative, and duration must be positive"))
	case slices.Contains(l.Scopes, ""):
		return cli.SettingError("scope", errors.New("is empty"))
	}
	return nil
}
