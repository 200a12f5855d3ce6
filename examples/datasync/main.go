// Command datasync is a background service that calls an API periodically, and that API, over gRPC and over HTTP. It
// shows the client credentials grant (RFC 6749 §4.4) from both ends, with Grantor in development mode as the issuer:
//
//	go run ./cmd/grantor serve --dev
//	go run ./examples/datasync
//
// The client is in sync.go, the API in api.go, and the rules of the API in v1/sync.proto.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal kills the process.
	context.AfterFunc(ctx, stop)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, os.Args[1:], log); err != nil {
		log.Error("datasync failed", "err", err)
		os.Exit(1)
	}
}

// settings are the values of the flags and of the environment.
type settings struct {
	issuer, secret string
	// tokenFile and spiffeSocket say where the service's identity is, if it has one instead of a secret.
	tokenFile, spiffeSocket string
	grpcAPI, httpAPI        string
	every                   time.Duration
	part                    string
}

func parse(args []string) (settings, error) {
	// The default is the secret of development mode, which is public.
	s := settings{secret: "service-secret-here"}
	if secret, ok := os.LookupEnv("DATASYNC_SECRET"); ok {
		s.secret = secret
	}
	flags := flag.NewFlagSet("datasync", flag.ExitOnError)
	flags.StringVar(&s.issuer, "issuer", "http://localhost:8080", "`URL` of the issuer")
	flags.StringVar(&s.tokenFile, "token-file", "", "`file` with a token of Kubernetes, which authenticates the service instead of its secret")
	flags.StringVar(&s.spiffeSocket, "spiffe-socket", "", "`address` of the SPIFFE Workload API, whose JWT-SVID authenticates the service instead of its secret")
	flags.StringVar(&s.grpcAPI, "grpc-api", "localhost:9091", "`address` of the API over gRPC")
	flags.StringVar(&s.httpAPI, "http-api", "localhost:9090", "`address` of the API over HTTP")
	flags.DurationVar(&s.every, "every", 2*time.Second, "`interval` between two rounds of calls; a real service would wait for minutes")
	flags.StringVar(&s.part, "part", "both", "`part` to run: api, sync or both")
	if err := flags.Parse(args); err != nil {
		return settings{}, err
	}
	switch {
	case flags.NArg() > 0:
		return settings{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.part != "api" && s.part != "sync" && s.part != "both":
		return settings{}, fmt.Errorf("-part %q is not api, sync or both", s.part)
	case s.tokenFile != "" && s.spiffeSocket != "":
		return settings{}, errors.New("-token-file and -spiffe-socket are both set; give one")
	case s.every <= 0:
		return settings{}, fmt.Errorf("-every %s is not positive", s.every)
	}
	return s, nil
}

// run runs the parts until ctx ends. It returns an error only for what a retry would not cure, such as a wrong flag or
// a port in use.
func run(ctx context.Context, args []string, log *slog.Logger) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	var tasks []func(context.Context) error
	if s.part != "sync" {
		api, err := newAPI(ctx, s, log.With("part", "api"))
		if err != nil {
			return err
		}
		// If a port is 0, the system has chosen one.
		s.grpcAPI, s.httpAPI = api.grpcPort.Addr().String(), api.httpPort.Addr().String()
		tasks = append(tasks, api.run)
	}
	if s.part != "api" {
		service, err := newDataSync(ctx, s, log.With("part", "sync"))
		if err != nil {
			return err
		}
		tasks = append(tasks, service.run)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, task := range tasks {
		group.Go(func() error { return task(ctx) })
	}
	return group.Wait()
}
