package main

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/attach"
)

// oneMethod has two clients, each registered for one method, as clients that come from Hydra are.
const oneMethod = `resources:
  - resource: https://billing.internal
    scopes: [billing.run]
clients:
  - client_id: client_secret_basic
    client_secret: service-secret-here
    auth_methods: [client_secret_basic]
    scopes: [billing.run, grantor:clients.read, grantor:clients.write, grantor:resources.write, grantor:keys.read]
  - client_id: client_secret_post
    client_secret: service-secret-here
    auth_methods: [client_secret_post]
    scopes: [billing.run, grantor:clients.read, grantor:clients.write, grantor:resources.write, grantor:keys.read]
`

// asClientOfMethod starts a server and sets up the commands to be the client that is registered for a method.
func asClientOfMethod(t *testing.T, method string) (r *servetest.Replica, manifest string) {
	t.Helper()
	manifest = servetest.WriteFile(t, "clients.yaml", oneMethod)
	r = servetest.Dev(t, "--apply="+manifest)
	issuer, err := r.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GRANTOR_ISSUER", issuer.String())
	t.Setenv("GRANTOR_CLIENT_ID", method)
	t.Setenv("GRANTOR_CLIENT_SECRET", clitest.DevSecret)
	return r, manifest
}

// refusals counts the failed authentications in the log of a server.
func refusals(r *servetest.Replica) int {
	return strings.Count(r.Log.String(), `"reason":"auth_method_not_allowed"`) + strings.Count(r.Log.String(), `"reason":"wrong_secret"`)
}

// TestCommandsOfOneMethod runs each command that authenticates as a client, over HTTP and over gRPC. Each has to find the
// client's method, at the cost of one refusal at most; with --client-auth-method there is none.
func TestCommandsOfOneMethod(t *testing.T) {
	load := " --duration=200ms --warm-up=0s --in-flight=4 --connections=1 --tokens=2 --quiet --wire="
	for _, method := range []string{attach.ClientSecretBasic, attach.ClientSecretPost} {
		for _, command := range []string{
			"client list", "key list", "apply -f MANIFEST",
			"token issue --scope=billing.run", "token introspect TOKEN", "token revoke TOKEN", "token revoke --all",
			"bench issue --scope=billing.run" + load + "grpc", "bench issue --scope=billing.run" + load + "rest",
			"bench introspect --scope=billing.run" + load + "grpc", "bench introspect --scope=billing.run" + load + "rest",
		} {
			t.Run(method+" "+command, func(t *testing.T) {
				r, manifest := asClientOfMethod(t, method)
				raw := runToken(t, "", "issue", "--scope=billing.run").Works(t)
				command := strings.NewReplacer("TOKEN", raw, "MANIFEST", manifest).Replace(command)
				for _, choice := range []string{"", " --client-auth-method=" + method} {
					before := refusals(r)
					text := run(t, strings.Fields(command+choice)...).Works(t)
					if extra := refusals(r) - before; strings.Contains(text, "failed") || extra > 1 || choice != "" && extra > 0 {
						t.Errorf("%s: %d authentications failed:\n%s", choice, extra, text)
					}
				}
			})
		}
		r, _ := asClientOfMethod(t, method)
		clients := servetest.WriteFile(t, "clients", "client_secret_basic "+clitest.DevSecret+"\nclient_secret_post "+clitest.DevSecret+"\n")
		for _, wire := range []string{"grpc", "rest"} {
			before := refusals(r)
			text := run(t, strings.Fields("bench issue --scope=billing.run --clients="+clients+load+wire)...).Works(t)
			if extra := refusals(r) - before; strings.Contains(text, "failed") || extra > 2 {
				t.Errorf("two clients over %s: %d authentications failed:\n%s", wire, extra, text)
			}
		}
	}
}

// TestCommandsBeyondFailureLimit repeats a command more often than authentications of a client may fail in a minute.
func TestCommandsBeyondFailureLimit(t *testing.T) {
	r, _ := asClientOfMethod(t, attach.ClientSecretPost)
	for range 13 {
		runToken(t, "", "issue", "--scope=billing.run").Works(t)
	}
	run(t, "client", "list").Works(t)
	if got := refusals(r); got != 10 {
		t.Errorf("%d authentications failed, want the limit of 10", got)
	}
}

// TestSourcesBeyondFailureLimit gets tokens for more new sources, each as of a program that starts, than authentications of a
// client may fail in a minute.
func TestSourcesBeyondFailureLimit(t *testing.T) {
	for method, options := range map[string]func(r *servetest.Replica) []attach.Option{
		attach.ClientSecretPost: func(*servetest.Replica) []attach.Option {
			return []attach.Option{attach.Scopes("billing.run")}
		},
		attach.ClientSecretBasic: func(r *servetest.Replica) []attach.Option {
			return []attach.Option{attach.Scopes("billing.run"), attach.OverGRPC(servetest.Dial(t, r.GRPCAddr()))}
		},
	} {
		t.Run(method, func(t *testing.T) {
			r, _ := asClientOfMethod(t, method)
			for i := range 12 {
				source := attach.ClientCredentials(os.Getenv("GRANTOR_ISSUER"), method, clitest.DevSecret, options(r)...)
				if _, err := source.Token(); err != nil {
					t.Errorf("source %d: %v", i+1, err)
				}
			}
			if got := refusals(r); got != 10 {
				t.Errorf("%d authentications failed, want the limit of 10", got)
			}
			wrong := attach.ClientCredentials(os.Getenv("GRANTOR_ISSUER"), method, "another-secret-instead", options(r)...)
			if _, err := wrong.Token(); status.Code(err) != codes.Unavailable {
				t.Errorf("a wrong secret: got %v, want UNAVAILABLE", err)
			}
		})
	}
}

// TestWrongSecretIsSentTwice expects a wrong secret to cost two failures, or one if the method is chosen.
func TestWrongSecretIsSentTwice(t *testing.T) {
	r, _ := asClientOfMethod(t, attach.ClientSecretPost)
	t.Setenv("GRANTOR_CLIENT_SECRET", "another-secret-instead")
	runToken(t, "", "issue").Exits(t, cli.ExitDenied, "invalid_client", "another")
	if got := refusals(r); got != 2 {
		t.Errorf("%d authentications failed, want 2", got)
	}
	runToken(t, "", "issue", "--client-auth-method=client_secret_post").Exits(t, cli.ExitDenied, "invalid_client", "another")
	if got := refusals(r); got != 3 {
		t.Errorf("%d authentications failed, want 3", got)
	}
}

// TestClientAuthMethodSetting takes the method from each possible source.
func TestClientAuthMethodSetting(t *testing.T) {
	r, _ := asClientOfMethod(t, attach.ClientSecretPost)
	works := func(name string, args ...string) {
		t.Helper()
		run(t, append(strings.Fields(name), args...)...).Works(t)
		if got := refusals(r); got > 0 {
			t.Errorf("%s: %d authentications failed", name, got)
		}
	}
	config := servetest.WriteFile(t, "token.yaml", "client_auth_method: client_secret_post\n")
	works("token issue --scope=billing.run", "--config="+config)
	profiles(t, "prod: {issuer: "+os.Getenv("GRANTOR_ISSUER")+", client_id: client_secret_post, client_secret: "+clitest.DevSecret+", client_auth_method: client_secret_post}\n")
	works("key list", "--profile=prod")
	t.Setenv("GRANTOR_PROFILE", "prod")
	works("client list")
	t.Setenv("GRANTOR_CLIENT_AUTH_METHOD", "client_secret_post")
	works("token issue --scope=billing.run")
	works("client list")
	run(t, "token", "issue", "--client-auth-method=none").Exits(t, cli.ExitUsage, `client-auth-method: "none" is neither client_secret_basic nor client_secret_post`)
	run(t, "bench", "--client-auth-method=none", "--clients="+servetest.WriteFile(t, "clients", "a b\n")).Exits(t, cli.ExitUsage, "client-auth-method: ")
	run(t, "token", "issue", "--client-auth-method=client_secret_basic").Exits(t, cli.ExitDenied, "invalid_client")
	profiles(t, "prod: {issuer: https://a.example, client_auth_method: client_secret_post}\n")
	run(t, "key", "list", "--profile=prod").Exits(t, cli.ExitUsage, "needs the client_id")
}
