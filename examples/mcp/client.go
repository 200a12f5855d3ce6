package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/auth/extauth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

// newHandler returns the handler that gets tokens by client credentials when a server refuses a request, from the issuer that
// the server names. That must be the given issuer: otherwise any server could name itself, and receive the secret.
func newHandler(issuer, id, secret string) (auth.OAuthHandler, error) {
	return extauth.NewClientCredentialsHandler(&extauth.ClientCredentialsHandlerConfig{
		Credentials: &oauthex.ClientCredentials{
			Issuer: issuer, ClientID: id, ClientSecretAuth: &oauthex.ClientSecretAuth{ClientSecret: secret},
		},
	})
}

// connect begins to use the server at the endpoint.
func connect(ctx context.Context, endpoint string, client *http.Client, handler auth.OAuthHandler) (*mcp.ClientSession, error) {
	transport := &mcp.StreamableClientTransport{Endpoint: endpoint, HTTPClient: client, OAuthHandler: handler, DisableStandaloneSSE: true}
	return mcp.NewClient(&mcp.Implementation{Name: "order-agent", Version: "1.0.0"}, nil).Connect(ctx, transport, nil)
}

// status asks for the status of an order.
func status(ctx context.Context, session *mcp.ClientSession, id string) (string, error) {
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "order_status", Arguments: order{ID: id}})
	if err != nil {
		return "", err
	}
	for _, content := range result.Content {
		if text, ok := content.(*mcp.TextContent); ok && !result.IsError {
			return text.Text, nil
		}
	}
	return "", fmt.Errorf("the tool failed: %v", result.Content)
}
