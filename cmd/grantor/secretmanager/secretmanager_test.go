package secretmanager_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/secretmanager"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/interceptors/secretvar/vaulttest"
)

// mark is part of every secret, so that a fragment of one in an error is found too.
const mark = "s3cret"

// serveAWS emulates the two calls of AWS Secrets Manager that its driver makes.
func serveAWS(t *testing.T) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch {
		case !strings.Contains(string(body), `"SecretId":"billing"`):
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"__type":"AccessDeniedException","Message":"not authorized to\n perform this"}`)
		case strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetSecretValue"):
			_, _ = io.WriteString(w, `{"Name":"billing","VersionId":"v","SecretString":"`+mark+`-aws"}`)
		default:
			_, _ = io.WriteString(w, `{"Name":"billing","VersionIdsToStages":{"v":["AWSCURRENT"]},"LastChangedDate":1764504859}`)
		}
	}))
	t.Cleanup(server.Close)
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "eu-central-1",
		"AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
}

// TestRead reads from each kind of secret manager that an emulator stands in for. Azure Key Vault is in TestSecretURLs of
// the command, because its emulator needs an environment that is read once in a process.
func TestRead(t *testing.T) {
	serveAWS(t)
	vault := vaulttest.NewVault(t)
	vault.SetEnv(t, vault.Root)
	vault.Put("secret/billing", map[string]any{"client_secret": mark + "-vault"})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery != "token="+mark {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, mark+"-http\n")
	}))
	t.Cleanup(server.Close)
	file := servetest.WriteFile(t, "secret", mark+"-file\n")
	for url, want := range map[string]string{
		"awssecretsmanager://billing?region=eu-central-1": mark + "-aws",
		"hashivault://secret/billing":                     mark + "-vault",
		server.URL + "/billing?token=" + mark:             mark + "-http",
		"file://" + file:                                  mark + "-file",
	} {
		if got, err := secretmanager.Read(t.Context(), url); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", url, got, err, want)
		}
	}
	for url, want := range map[string]string{
		"awssecretsmanager://other":                   "awssecretsmanager://other: ",
		"hashivault://secret/other":                   "hashivault://secret/other: there is no such secret",
		"azurekeyvault://v.vault.azure.net/keys/a":    "want azurekeyvault://VAULT.vault.azure.net/secrets/NAME",
		"gcpsecretmanager://projects/p/secrets/s?a=b": "gcpsecretmanager://projects/p/secrets/s",
		server.URL + "/billing?token=wrong" + mark:    server.URL + "/billing: ",
		"file:///nonexistent":                         "/nonexistent",
		"http://vault.example.com/a?token=" + mark:    "over plaintext http from loopback addresses only",
		"http://10.0.0.1/a":                           "over plaintext http from loopback addresses only",
		"constant://?val=" + mark:                     "begins with one of awssecretsmanager, azurekeyvault, file, gcpsecretmanager, hashivault, http, https",
		"abc:" + mark:                                 "the place of a secret is a URL",
		"k9://" + mark:                                "begins with one of awssecretsmanager",
		mark + "://a":                                 "begins with one of awssecretsmanager",
		"base64key://" + mark:                         "begins with one of awssecretsmanager",
		"file:" + mark:                                "the place of a secret is a URL",
		"https:/" + mark:                              "the place of a secret is a URL",
		"https://" + mark + " example.com":            "the place of a secret is a URL",
		mark:                                          "the place of a secret is a URL",
		"":                                            "the place of a secret is a URL",
	} {
		began := time.Now()
		got, err := secretmanager.Read(t.Context(), url)
		if got != "" || err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %q, %v, want one line with %q", url, got, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "code=") || strings.Contains(err.Error(), "runtimevar")) {
			t.Errorf("%s: the error has words of Go CDK: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), mark) || strings.HasPrefix(err.Error(), "secretvar")) {
			t.Errorf("%s: the error quotes a secret: %v", url, err)
		}
		if spent := time.Since(began); spent > 20*time.Second {
			t.Errorf("%s: took %v", url, spent)
		}
	}
}
