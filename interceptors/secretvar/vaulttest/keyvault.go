package vaulttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Host is the host of the Key Vault.
const Host = "grantor-test.vault.azure.net"

// The identity of the process in Microsoft Entra.
const (
	tenant         = "11111111-2222-3333-4444-555555555555"
	application    = "66666666-7777-8888-9999-000000000000"
	applicationKey = "the-password-of-the-process-in-entra"
	accessToken    = "an-access-token-of-entra"
)

const authority = "login.microsoftonline.com"

// KeyVault emulates Azure Key Vault and the part of Microsoft Entra that issues its tokens, under their names and over TLS.
type KeyVault struct {
	server *httptest.Server

	mu       sync.Mutex
	secrets  map[string][]keyVaultSecret
	replace  http.HandlerFunc
	denied   bool
	requests int
}

// keyVaultSecret is a version of a secret.
type keyVaultSecret struct {
	Value    string
	Disabled bool
}

// NewKeyVault starts an emulator. It runs until Close.
func NewKeyVault() (*KeyVault, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vaulttest"}, IsCA: true, BasicConstraintsValid: true,
		DNSNames:  []string{Host, authority, "login.microsoft.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	k := &KeyVault{secrets: make(map[string][]keyVaultSecret)}
	k.server = httptest.NewUnstartedServer(k)
	k.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	k.server.StartTLS()
	return k, nil
}

// Close ends the emulator.
func (k *KeyVault) Close() { k.server.Close() }

// Transport returns a transport that reaches the emulator under each name, and trusts it.
func (k *KeyVault) Transport() *http.Transport {
	roots := x509.NewCertPool()
	roots.AddCert(k.server.Certificate())
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, k.server.Listener.Addr().String())
		},
	}
}

// Identity returns the environment by which a process authenticates.
func (*KeyVault) Identity() map[string]string {
	return map[string]string{
		"AZURE_TENANT_ID": tenant, "AZURE_CLIENT_ID": application, "AZURE_CLIENT_SECRET": applicationKey,
		"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
	}
}

// Environment returns the environment in which another process reaches the emulator: its identity, a proxy that leads every
// host to the emulator, and the certificate that it trusts, which Go reads from SSL_CERT_FILE on Linux.
func (k *KeyVault) Environment(t testing.TB) []string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(k.tunnel))
	t.Cleanup(proxy.Close)
	file := filepath.Join(t.TempDir(), "roots.pem")
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.server.Certificate().Raw})
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"HTTPS_PROXY=" + proxy.URL, "SSL_CERT_FILE=" + file}
	for name, value := range k.Identity() {
		env = append(env, name+"="+value)
	}
	return env
}

// tunnel implements the method CONNECT of a proxy.
func (k *KeyVault) tunnel(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	upstream, err := new(net.Dialer).DialContext(r.Context(), "tcp", k.server.Listener.Addr().String())
	if err != nil {
		http.Error(w, "no emulator", http.StatusBadGateway)
		return
	}
	downstream, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = upstream.Close()
		return
	}
	_, _ = io.WriteString(downstream, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(upstream, buffered) // the server may have read the first byte that follows the request
		_ = upstream.Close()
	}()
	_, _ = io.Copy(downstream, upstream)
	_ = downstream.Close()
}

// Set makes a new version of a secret.
func (k *KeyVault) Set(name, value string) {
	k.change(func() { k.secrets[name] = append(k.secrets[name], keyVaultSecret{Value: value}) })
}

// Disable disables every version of a secret.
func (k *KeyVault) Disable(name string) {
	k.change(func() {
		for i := range k.secrets[name] {
			k.secrets[name][i].Disabled = true
		}
	})
}

// Delete deletes a secret.
func (k *KeyVault) Delete(name string) { k.change(func() { delete(k.secrets, name) }) }

// Deny sets whether the process lacks the permission to get secrets.
func (k *KeyVault) Deny(denied bool) { k.change(func() { k.denied = denied }) }

// Answer has the Key Vault answer each further request with handler; nil ends that.
func (k *KeyVault) Answer(handler http.HandlerFunc) { k.change(func() { k.replace = handler }) }

// Requests returns how many requests the Key Vault has received.
func (k *KeyVault) Requests() (n int) { k.change(func() { n = k.requests }); return n }

func (k *KeyVault) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
}

// ServeHTTP implements [http.Handler].
func (k *KeyVault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if host, _, _ := strings.Cut(r.Host, ":"); host != Host {
		serveEntra(w, r)
		return
	}
	var replace http.HandlerFunc
	k.change(func() {
		k.requests++
		replace = k.replace
	})
	if replace != nil {
		replace(w, r)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Header.Get("Authorization") != "Bearer "+accessToken:
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://`+authority+"/"+tenant+`", resource="https://vault.azure.net"`)
		keyVaultError(w, http.StatusUnauthorized, "Unauthorized", "")
	case r.URL.Query().Get("api-version") == "":
		keyVaultError(w, http.StatusBadRequest, "BadParameter", "")
	case r.Method != http.MethodGet || len(parts) < 2 || len(parts) > 3 || parts[0] != "secrets":
		keyVaultError(w, http.StatusNotFound, "NotFound", "")
	case k.denied:
		keyVaultError(w, http.StatusForbidden, "Forbidden", "ForbiddenByRbac")
	default:
		k.serveSecret(w, parts[1], strings.Join(parts[2:], ""))
	}
}

// serveSecret serves a version of a secret: versions are numbers, from 1 on, and "" is the newest.
func (k *KeyVault) serveSecret(w http.ResponseWriter, name, version string) {
	all := k.secrets[name]
	number := len(all)
	if version != "" {
		number, _ = strconv.Atoi(version)
	}
	switch {
	case number < 1 || number > len(all):
		keyVaultError(w, http.StatusNotFound, "SecretNotFound", "")
	case all[number-1].Disabled:
		keyVaultError(w, http.StatusForbidden, "Forbidden", "SecretDisabled")
	default:
		writeJSON(w, http.StatusOK, map[string]any{
			"value": all[number-1].Value, "id": "https://" + Host + "/secrets/" + name + "/" + strconv.Itoa(number),
			"attributes": map[string]any{"enabled": true, "created": 1764504859, "updated": 1764504859, "recoveryLevel": "Recoverable+Purgeable"},
		})
	}
}

func keyVaultError(w http.ResponseWriter, status int, code, inner string) {
	body := map[string]any{"code": code, "message": "This is what Key Vault writes for people."}
	if inner != "" {
		body["innererror"] = map[string]any{"code": inner}
	}
	writeJSON(w, status, map[string]any{"error": body})
}

// serveEntra issues a token to the identity of the process.
func serveEntra(w http.ResponseWriter, r *http.Request) {
	base := "https://" + authority + "/" + tenant
	switch {
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		writeJSON(w, http.StatusOK, map[string]any{
			"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration", "api-version": "1.1",
			"metadata": []any{map[string]any{"preferred_network": authority, "preferred_cache": authority, "aliases": []string{authority}}},
		})
	case r.URL.Path == "/"+tenant+"/v2.0/.well-known/openid-configuration":
		writeJSON(w, http.StatusOK, map[string]any{
			"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0",
		})
	case r.URL.Path != "/"+tenant+"/oauth2/v2.0/token":
		http.NotFound(w, r)
	case r.FormValue("client_id") != application || r.FormValue("client_secret") != applicationKey:
		writeJSON(w, http.StatusUnauthorized, map[string]any{
			"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided.", "error_codes": []int{7000215},
		})
	case !strings.HasPrefix(r.FormValue("scope"), "https://vault.azure.net/.default"):
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_scope", "error_description": "AADSTS70011: The scope is not valid."})
	default:
		writeJSON(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": accessToken})
	}
}
