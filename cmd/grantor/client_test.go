package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

const adminSecret = "administrator-secret"

// administration is a manifest with the first administrator, and with a client that may only read.
const administration = `
resources:
  - {resource: "https://orders.internal", name: Orders API, scopes: [api1, orders.read]}
clients:
  - client_id: administrator
    client_secret: ` + adminSecret + `
    scopes: ["grantor:clients.read", "grantor:clients.write", "grantor:resources.read", "grantor:resources.write", "grantor:keys.read", "grantor:keys.write", "grantor:trust.read", "grantor:trust.write"]
  - client_id: reader
    client_secret: reader-secret
    scopes: ["grantor:clients.read", "grantor:resources.read", "grantor:keys.read"]
  - client_id: clerk
    client_secret: clerk-secret
    scopes: ["grantor:clients.read", "grantor:clients.write"]
`

// asAdministrator starts a server and sets up the commands to be its first administrator.
func asAdministrator(t *testing.T) *servetest.Replica {
	t.Helper()
	r := servetest.Dev(t, "--apply="+servetest.WriteFile(t, "administration.yaml", administration))
	issuer, err := r.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	clitest.Isolate(t)
	t.Setenv("GRANTOR_ISSUER", issuer.String())
	as(t, "administrator", adminSecret)
	return r
}

// as sets up the commands to be another client.
func as(t *testing.T, id, secret string) {
	t.Helper()
	t.Setenv("GRANTOR_CLIENT_ID", id)
	t.Setenv("GRANTOR_CLIENT_SECRET", secret)
}

// shows expects a text to match each of the patterns, line by line.
func shows(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile(`(?m)` + pattern).MatchString(text) {
			t.Errorf("got this, without %s:\n%s", pattern, text)
		}
	}
}

// authenticates reports whether a client gets a token with a secret.
func authenticates(t *testing.T, id, secret string) bool {
	t.Helper()
	path := servetest.WriteFile(t, "secret", secret)
	saved := os.Getenv("GRANTOR_CLIENT_SECRET")
	t.Setenv("GRANTOR_CLIENT_SECRET", "")
	got := run(t, "token", "issue", "--client-id="+id, "--client-secret-file="+path)
	t.Setenv("GRANTOR_CLIENT_SECRET", saved)
	if got.Err != nil && cli.ExitCode(got.Err) != cli.ExitDenied {
		t.Fatal(got.Err)
	}
	return got.Err == nil
}

func TestClientLife(t *testing.T) {
	asAdministrator(t)
	made := run(t, "client", "create", "sync", "--name", "Data Sync", "--scope", "api1 orders.read", "--default-scope", "api1",
		"--access-token-lifetime", "10m", "--auth-method", "client_secret_basic")
	secret := strings.TrimSuffix(made.Works(t), "\n")
	if strings.ContainsAny(secret, " \n") || !strings.HasPrefix(made.ErrOut, "Client sync is registered.\n") {
		t.Errorf("got %q and %q, want the secret alone, and what was done beside it", made.Out, made.ErrOut)
	}
	if !authenticates(t, "sync", secret) {
		t.Error("the secret that was printed does not prove the client")
	}
	run(t, "client", "create", "sync").Exits(t, cli.ExitConflict, "client sync: already_exists: ")

	shows(t, grantor(t, "client get sync"), `^client_id +sync$`, `^client_name +Data Sync$`, `^disabled +false$`,
		`^grant_types +client_credentials$`, `^scopes +api1 orders.read$`, `^default_scopes +api1$`, `^resources +none$`,
		`^auth_methods +client_secret_basic$`, `^access_token_lifetime +10m0s$`, `^create_time +\d{4}-\d\d-\d\dT\S+Z$`, `^etag +\S+$`,
		`^SECRET +KIND +CREATED +ENDS +LAST USED$`, `^\S+ +generated +\S+Z +never +\S+$`)
	shows(t, grantor(t, "client list"), `^CLIENT +NAME +STATE +SECRETS +CHANGED +SCOPES$`,
		`^administrator +- +enabled +1 +\S+Z +grantor:clients.read `, `^sync +Data Sync +enabled +1 +\S+Z +api1 orders.read$`)

	grantor(t, "client update sync --add-scope orders.read --remove-scope api1 --default-scope= --access-token-lifetime 0 --name=")
	got := fields(t, grantor(t, "client get sync -o json"))
	if fmt.Sprint(got["scopes"]) != "[orders.read]" || got["default_scopes"] != nil || got["access_token_lifetime"] != nil || got["client_name"] != nil {
		t.Errorf("got %v, want the fields as they were set", got)
	}
	grantor(t, "client update sync --allowed-network 203.0.113.0/24")
	if authenticates(t, "sync", secret) {
		t.Error("a client got a token from a network that is not one of its own")
	}
	shows(t, grantor(t, "client get sync"), `^allowed_networks +203.0.113.0/24$`)
	grantor(t, "client update sync --allowed-network=")
	shows(t, grantor(t, "client get sync"), `^allowed_networks +any$`)
	grantor(t, "client update sync --scope api1 --resource https://orders.internal")
	shows(t, grantor(t, "client get sync"), `^scopes +api1$`, `^resources +https://orders.internal$`)

	raw := grantor(t, "token issue --client-id administrator")
	grantor(t, "client disable sync")
	if authenticates(t, "sync", secret) {
		t.Error("a client that is disabled got a token")
	}
	shows(t, grantor(t, "client list"), `^sync .* disabled `)
	grantor(t, "client enable sync")
	if !authenticates(t, "sync", secret) {
		t.Error("a client that is enabled again got no token")
	}
	if got := grantor(t, "client revoke administrator --yes"); got != "All tokens of administrator that were issued until now are revoked.\n" {
		t.Errorf("got %q", got)
	}
	if got := runToken(t, raw, "introspect").Works(t); got != "  active  false\n" {
		t.Errorf("a token after the revocation: got %q", got)
	}
	if got := grantor(t, "client delete sync --yes"); got != "Client sync is deleted, and its tokens are revoked.\n" {
		t.Errorf("got %q", got)
	}
	if authenticates(t, "sync", secret) {
		t.Error("a client that is removed got a token")
	}
}

// TestClientSecrets rotates a secret as an operator does.
func TestClientSecrets(t *testing.T) {
	asAdministrator(t)
	first := strings.TrimSpace(grantor(t, "client create sync --scope api1"))
	ids := func() []string {
		t.Helper()
		list, _ := fields(t, grantor(t, "client secret list sync -o json"))["secrets"].([]any)
		var all []string
		for _, one := range list {
			secret, _ := one.(map[string]any)
			all = append(all, fmt.Sprint(secret["secret_id"]))
		}
		return all
	}
	before := ids()
	rotated := run(t, "client", "secret", "rotate", "sync", "--grace", "1h")
	second := strings.TrimSpace(rotated.Works(t))
	after := ids()
	if len(before) != 1 || len(after) != 2 || after[0] != before[0] {
		t.Fatalf("got the secrets %q and then %q, want one and then another beside it", before, after)
	}
	shows(t, rotated.ErrOut, `^Client sync has the new secret `+after[1]+`; any other expires within 1h0m0s.$`)
	shows(t, grantor(t, "client secret list sync"), `^`+after[0]+` +generated +\S+Z +\S+Z +`, `^`+after[1]+` +generated +\S+Z +never +`)
	if !authenticates(t, "sync", first) || !authenticates(t, "sync", second) {
		t.Error("within the grace a secret does not prove the client")
	}
	shows(t, grantor(t, "client secret expire sync "+after[0]+" --never"), ` never expires.$`)
	shows(t, grantor(t, "client secret expire sync "+after[0]+" --in 48h"), ` expires at \S+Z.$`)
	grantor(t, "client secret expire sync "+after[0])
	if authenticates(t, "sync", first) {
		t.Error("a secret that ended authenticates the client")
	}
	grantor(t, "client secret delete sync "+after[0]+" --yes")
	if got := ids(); !slices.Equal(got, after[1:]) {
		t.Errorf("got the secrets %q, want %q", got, after[1:])
	}
	run(t, "client", "secret", "delete", "sync", after[0], "--yes").Exits(t, cli.ExitNotFound, "secret "+after[0]+": not_found: ")

	answer := fields(t, grantor(t, "client secret create sync --expires-in 1h -o json"))
	third, _ := answer["client_secret"].(string)
	if !authenticates(t, "sync", third) || answer["secret_id"] == "" {
		t.Errorf("got %v, want a secret that authenticates the client", answer)
	}
	grantor(t, "client secret rotate sync --grace 0s")
	if authenticates(t, "sync", second) || authenticates(t, "sync", third) {
		t.Error("without a grace an old secret authenticates the client")
	}
	const own = "a-secret-of-my-own"
	chosen := runOn(t, strings.NewReader(own+"\n"), "client", "secret", "create", "sync", "--secret-file", "-")
	if chosen.Works(t) != "" || strings.Contains(chosen.ErrOut, own) || !authenticates(t, "sync", own) {
		t.Errorf("got %q and %q, want nothing of the secret, and that it authenticates the client", chosen.Out, chosen.ErrOut)
	}
	run(t, "client", "secret", "create", "sync", "--secret-file", servetest.WriteFile(t, "own", "short")).Exits(t, cli.ExitInvalid, "client_secret", "short")
	if got := run(t, "client", "create", "bare", "--without-secret"); got.Works(t) != "" || got.ErrOut != "Client bare is registered.\n" {
		t.Errorf("got %q and %q, want no secret", got.Out, got.ErrOut)
	}
	if got := grantor(t, "client secret list bare -o yaml"); got != "secrets: []\n" {
		t.Errorf("got %q, want none", got)
	}
}

// TestClientRefusals checks the exit code of each refusal of the issuer.
func TestClientRefusals(t *testing.T) {
	asAdministrator(t)
	grantor(t, "client create sync --scope api1")
	for _, c := range []struct {
		who, command string
		code         int
		want         string
	}{
		{"administrator", "client get nobody", cli.ExitNotFound, "client nobody: not_found: "},
		{"administrator", "client update nobody --name x", cli.ExitNotFound, "client nobody: not_found: "},
		{"administrator", "client disable nobody", cli.ExitNotFound, "client nobody: not_found: "},
		{"administrator", "client delete nobody --yes", cli.ExitNotFound, "client nobody: not_found: "},
		{"administrator", "client revoke nobody --yes", cli.ExitNotFound, "client nobody: not_found: "},
		{"administrator", "client secret list nobody", cli.ExitNotFound, "client nobody: not_found: "},
		{"administrator", "client secret expire sync nothing", cli.ExitNotFound, "client sync: secret nothing: not_found: "},
		{"administrator", "client update sync --name x --etag zz", cli.ExitConflict, "client sync: conflict: "},
		{"administrator", "client delete sync --yes --etag zz", cli.ExitConflict, "client sync: conflict: "},
		{"administrator", "client create other --scope nope", cli.ExitInvalid, `"nope" belongs to no resource`},
		{"administrator", "client update sync --access-token-lifetime 25h", cli.ExitInvalid, "access_token_lifetime"},
		{"administrator", "client update sync --allowed-network 10.0.0.1/8", cli.ExitInvalid, "allowed_networks"},
		{"administrator", "client create other --grant-type password", cli.ExitInvalid, "grant_types"},
		{"administrator", "client secret rotate sync --grace 1500ms", cli.ExitInvalid, "grace_period"},
		{"reader", "client create other", cli.ExitDenied, "insufficient_scope: "},
		{"reader", "client delete sync --yes", cli.ExitDenied, "insufficient_scope: "},
		{"reader", "resource create https://a.example", cli.ExitDenied, "reader may not do this, which needs the scope grantor:resources.write; invalid_scope"},
		{"reader", "key rotate", cli.ExitDenied, "reader may not do this, which needs the scope grantor:keys.write; invalid_scope"},
		{"clerk", "client disable administrator", cli.ExitDenied, "insufficient_scope: "},
		{"clerk", "client create other --scope grantor:keys.write", cli.ExitDenied, "insufficient_scope: "},
		{"background-service", "client list", cli.ExitDenied, "background-service may not do this"},
		{"background-service", "client revoke sync --yes", cli.ExitDenied, "background-service may not do this"},
		{"stranger", "client list", cli.ExitDenied, "invalid_client: "},
	} {
		t.Run(c.who+" "+c.command, func(t *testing.T) {
			secret := map[string]string{"administrator": adminSecret, "background-service": clitest.DevSecret}[c.who]
			if secret == "" {
				secret = c.who + "-secret"
			}
			as(t, c.who, secret)
			run(t, strings.Fields(c.command)...).Exits(t, c.code, c.want, secret)
		})
	}
	// An update applies only to the state that was read.
	etag, _ := fields(t, grantor(t, "client get sync -o json"))["etag"].(string)
	grantor(t, "client update sync --name first --etag "+etag)
	run(t, "client", "update", "sync", "--name=second", "--etag="+etag).Exits(t, cli.ExitConflict, "client sync: conflict: ")
	shows(t, grantor(t, "client get sync"), `^client_name +first$`)
}

// TestClientForms checks the output for scripts.
func TestClientForms(t *testing.T) {
	asAdministrator(t)
	for form, read := range map[string]func([]byte, any) error{
		"json": json.Unmarshal, "yaml": func(data []byte, to any) error { return yaml.Unmarshal(data, to) },
	} {
		for _, command := range []string{
			"client create other --scope api1", "client get other", "client list", "client update other --name x",
			"client disable other", "client enable other", "client revoke other --yes", "client secret create other",
			"client secret rotate other", "client secret list other", "client delete other --yes",
			"resource create https://a.example", "resource get https://a.example", "resource list",
			"resource update https://a.example --name x", "resource delete https://a.example --yes", "key rotate", "key list",
		} {
			got := run(t, append(strings.Fields(command), "-o", form)...)
			var document map[string]any
			if err := read([]byte(got.Works(t)), &document); err != nil || got.ErrOut != "" {
				t.Errorf("%s -o %s: %v in %s; %s", command, form, err, got.Out, got.ErrOut)
			}
		}
	}
}

// TestClientProfile is an administrator with only a profile.
func TestClientProfile(t *testing.T) {
	r := asAdministrator(t)
	issuer, err := r.Issuer()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"GRANTOR_ISSUER", "GRANTOR_CLIENT_ID", "GRANTOR_CLIENT_SECRET"} {
		_ = os.Unsetenv(name)
	}
	path := profiles(t, fmt.Sprintf("here: {issuer: %q, client_id: administrator, client_secret_file: secret}\n", issuer.String()))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "secret"), []byte(adminSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	shows(t, grantor(t, "client list --profile here"), `^administrator `)
	grantor(t, "token issue --profile here")
}
