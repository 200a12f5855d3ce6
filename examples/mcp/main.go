// Command mcp is a server of the Model Context Protocol that machines call, and a client that calls it.
//
// The server publishes which issuer's tokens it accepts, and for which scopes (RFC 9728). The client knows the URL of the server
// and its own credentials: it finds the issuer's token endpoint, gets a token by client credentials and calls a tool.
//
//	go run . serve
//	go run . call 17
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mcp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("mcp", flag.ContinueOnError)
	issuer := flags.String("issuer", "http://localhost:8080", "`URL` of the issuer")
	endpoint := flags.String("endpoint", "http://localhost:9095/mcp", "`URL` of the server, for which its tokens are")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch command := flags.Arg(0); {
	case command == "serve" && flags.NArg() == 1:
		return serve(ctx, *issuer, *endpoint)
	case command == "call" && flags.NArg() == 2:
		handler, err := newHandler(*issuer, "order-agent", os.Getenv("ORDER_AGENT_SECRET"))
		if err != nil {
			return err
		}
		session, err := connect(ctx, *endpoint, http.DefaultClient, handler)
		if err != nil {
			return err
		}
		text, err := status(ctx, session, flags.Arg(1))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(out, text)
		return errors.Join(err, session.Close())
	default:
		return errors.New("usage: mcp [flags] serve, or mcp [flags] call ORDER")
	}
}
