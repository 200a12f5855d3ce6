package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/grantorhq/grantor/interceptors/verify"
)

// scope is what a token must have to call the server.
const scope = "orders.status"

// serve serves MCP at the endpoint until ctx ends.
func serve(ctx context.Context, issuer, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	verifier, err := newVerifier(ctx, issuer, endpoint)
	if err != nil {
		return err
	}
	defer verifier.Close()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(verifier, u.Path), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	slog.InfoContext(ctx, "serving", "endpoint", endpoint)
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// newVerifier returns the verifier of the tokens for the endpoint.
func newVerifier(ctx context.Context, issuer, endpoint string, options ...verify.Option) (*verify.Verifier, error) {
	options = append(options, verify.Audience(endpoint),
		verify.DescribeResource(verify.ProtectedResource{Scopes: []string{scope}, Name: "Orders"}),
		verify.OnRefusal(func(ctx context.Context, method string, err error) {
			slog.InfoContext(ctx, "refused", "method", method, "reason", err)
		}))
	return verify.New(ctx, issuer, options...)
}

// handler returns the handler of the server: MCP at path for callers with the scope, and its metadata for everyone.
func handler(verifier *verify.Verifier, path string) http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "orders", Version: "1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "order_status", Description: "the status of an order"}, orderStatus)
	// Without sessions, each request stands for itself: none uses the session of another caller, and ctx in a tool is that of
	// the request, with its caller.
	protocol := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &mcp.StreamableHTTPOptions{Stateless: true})

	mux := http.NewServeMux()
	mux.Handle(verify.MetadataHandler(verifier))
	mux.Handle(path, verify.HTTP(verifier, verify.Scopes(scope))(protocol))
	return mux
}

// order is the input of the tool.
type order struct {
	ID string `json:"id" jsonschema:"the number of the order"`
}

func orderStatus(ctx context.Context, _ *mcp.CallToolRequest, order order) (*mcp.CallToolResult, any, error) {
	caller, ok := verify.CallerFrom(ctx)
	if !ok {
		return nil, nil, errors.New("the caller is not known")
	}
	text := fmt.Sprintf("order %s: shipped (asked by %s)", order.ID, caller.ClientID)
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
}
