package main

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/secretvar/vaulttest"
	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redistest"
)

const secretURLs = `clients:
  - client_id: in-vault
    client_secret_url: hashivault://secret/in-vault?field=client_secret
  - client_id: in-azure
    client_secret_url: azurekeyvault://grantor-test.vault.azure.net/secrets/in-azure
  - client_id: in-file
    client_secret_url: file://FILE
`

// TestSecretURLs runs the binary with a manifest whose secrets are in emulators of HashiCorp Vault and Azure Key Vault. It
// starts, follows a new secret on SIGHUP, and keeps the last ones while a vault refuses. Neither the log nor an error has a
// secret.
func TestSecretURLs(t *testing.T) {
	t.Parallel()
	vault := vaulttest.NewVault(t)
	azure := must.Get(vaulttest.NewKeyVault())
	t.Cleanup(azure.Close)
	const mark = "s3cret"
	vault.Put("secret/in-vault", map[string]any{"client_secret": mark + "-of-vault-1", "user": "x"})
	azure.Set("in-azure", mark+"-of-azure-1")
	file := servetest.WriteFile(t, "secret", mark+"-of-file-1\n")
	manifest := servetest.WriteFile(t, "clients.yaml", strings.ReplaceAll(secretURLs, "FILE", file))
	redis, kek, binary := redistest.New(t), servetest.KEKFile(t), buildGrantor(t)
	env := append(azure.Environment(t), "VAULT_ADDR="+vault.Address, "VAULT_TOKEN="+vault.Root)
	store := []string{"--redis=" + redis.URL(), "--key-encryption-key-file=" + kek}
	// apply runs grantor apply in the environment, and more of it.
	apply := func(more ...string) (string, error) {
		t.Helper()
		command := exec.CommandContext(t.Context(), binary, append([]string{"apply", "-f", manifest}, store...)...)
		command.Env = append(append(os.Environ(), env...), more...)
		out, err := command.CombinedOutput()
		if strings.Contains(string(out), mark) {
			t.Errorf("the output has a secret: %s", out)
		}
		return string(out), err
	}
	if out, err := apply(); err != nil || strings.Count(out, "created   client ") != 3 {
		t.Fatalf("got %v, %s, want three clients", err, out)
	}
	for want, more := range map[string]string{
		"clients.yaml:3: hashivault://secret/in-vault: status 403: ": "VAULT_TOKEN=" + vault.Denied,
		"clients.yaml:3: hashivault://secret/in-vault: dial tcp":     "VAULT_ADDR=http://127.0.0.1:1",
		"(AADSTS7000215)": "AZURE_CLIENT_SECRET=" + mark,
	} {
		var exit *exec.ExitError
		if out, err := apply(more); !errors.As(err, &exit) || exit.ExitCode() != cli.ExitInvalid || !strings.Contains(out, want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%s: got %v, %s, want one line with %q", more, err, out, want)
		}
	}

	rest, ops := freeport.Address(t), freeport.Address(t)
	serve := append(append([]string{}, env...), binary, "serve", "--apply="+manifest, "--issuer=http://localhost:1", "--http-listen="+rest, "--grpc-listen=127.0.0.1:0")
	p := startProcess(t, "env", ops, append(serve, store...)...)
	status := func(id, secret string) int {
		t.Helper()
		answer, err := http.PostForm("http://"+rest+"/connect/introspect", url.Values{"client_id": {id}, "client_secret": {secret}, "token": {"x"}})
		if err != nil {
			t.Fatal(err)
		}
		servetest.ReadBody(t, answer)
		return answer.StatusCode
	}
	// authenticate checks which of the secrets authenticate. What the clients may do then does not matter.
	authenticate := func(generation string, want int) {
		t.Helper()
		for _, place := range []string{"vault", "azure", "file"} {
			if got := status("in-"+place, mark+"-of-"+place+"-"+generation); (got == http.StatusUnauthorized) != (want == http.StatusUnauthorized) {
				t.Errorf("in-%s with secret %s: got %d, want %d", place, generation, got, want)
			}
		}
	}
	reload := func(text string) string {
		t.Helper()
		before := len(p.log.String())
		if err := p.command.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		must.Eventually(t, "logging "+text, func() bool { return strings.Contains(p.log.String()[before:], text) })
		return p.log.String()[before:]
	}
	authenticate("1", http.StatusOK)
	vault.Put("secret/in-vault", map[string]any{"client_secret": mark + "-of-vault-2"})
	azure.Set("in-azure", mark+"-of-azure-2")
	must.Succeed(t, os.WriteFile(file, []byte(mark+"-of-file-2"), 0o600))
	azure.Deny(true)
	if got := reload("not reloaded"); !strings.Contains(got, "clients.yaml:5: azurekeyvault://grantor-test.vault.azure.net/secrets/in-azure: status 403") {
		t.Errorf("got %s, want the line of the client", got)
	}
	authenticate("1", http.StatusOK)
	azure.Deny(false)
	reload(`"msg":"reloaded"`)
	authenticate("2", http.StatusOK)
	authenticate("1", http.StatusUnauthorized)
	if strings.Contains(p.log.String(), mark) {
		t.Errorf("the log has a secret: %s", p.log.String())
	}
}
