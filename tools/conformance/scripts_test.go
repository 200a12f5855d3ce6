//go:build conformance

package conformance_test

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformanceNPM runs clients and resource servers from npm, in the versions of testdata/npm/package-lock.json.
func TestConformanceNPM(t *testing.T) {
	dir := workingCopy(t, "npm", "node", "npm")
	run(t, dir, nil, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	for _, script := range []string{"oauth4webapi.js", "openid-client.js", "openid-client5.js", "mcp.js"} {
		t.Run(script, func(t *testing.T) {
			withDocuments(t, func(t *testing.T, environment []string) string { return run(t, dir, environment, "node", script) })
		})
	}
	t.Run("grpc-js.js", func(t *testing.T) { run(t, dir, newStage(t), "node", "grpc-js.js") })
}

// TestConformancePyPI runs Authlib, requests-oauthlib, PyJWT and grpcio, in the versions and with the hashes of
// testdata/pip/requirements.txt.
func TestConformancePyPI(t *testing.T) {
	dir := workingCopy(t, "pip", "python3")
	run(t, dir, nil, "python3", "-m", "venv", "venv")
	run(t, dir, nil, "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--require-hashes", "-r", "requirements.txt")
	withDocuments(t, func(t *testing.T, environment []string) string {
		// The issuer is on loopback, without TLS.
		return run(t, dir, append(environment, "AUTHLIB_INSECURE_TRANSPORT=1"), "venv/bin/python", "authlib_client.py")
	})
	t.Run("requests_oauthlib_client.py", func(t *testing.T) {
		run(t, dir, append(newStage(t), "OAUTHLIB_INSECURE_TRANSPORT=1"), "venv/bin/python", "requests_oauthlib_client.py")
	})
	t.Run("grpcio_client.py", func(t *testing.T) {
		run(t, dir, nil, "venv/bin/python", append([]string{
			"-m", "grpc_tools.protoc", "-I", must.Get(filepath.Abs("../../proto")), "--python_out=.", "--grpc_python_out=.",
		}, must.Get(fs.Glob(os.DirFS("../../proto"), "grantor/v1/*.proto"))...)...)
		run(t, dir, newStage(t), "venv/bin/python", "grpcio_client.py")
	})
}

// TestConformanceMaven runs Spring Security and Nimbus, in the versions of testdata/maven/pom.xml. Spring looks for both
// documents itself, so that a proxy hides one.
func TestConformanceMaven(t *testing.T) {
	dir := workingCopy(t, "maven", "java", "mvn")
	run(t, dir, nil, "mvn", "--batch-mode", "--quiet", "--strict-checksums",
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory=lib")
	run(t, dir, nil, "javac", "-cp", "lib/*", "-d", "classes", "Spring.java", "SpringClient.java", "Nimbus.java")
	t.Run("SpringClient.java", func(t *testing.T) {
		run(t, dir, newStage(t), "java", "-XX:TieredStopAtLevel=1", "-cp", "classes:lib/*", "SpringClient")
	})
	hiding := map[string]string{authorizationServer: hide(t, openIDConfiguration), openIDConfiguration: hide(t, authorizationServer)}
	withDocuments(t, func(t *testing.T, environment []string) string {
		document := strings.TrimPrefix(environment[0], "DOCUMENT=")
		host, port, err := net.SplitHostPort(hiding[document])
		must.Succeed(t, err)
		return run(t, dir, environment, "java", "-XX:TieredStopAtLevel=1", "-Dhttp.proxyHost="+host, "-Dhttp.proxyPort="+port,
			"-Dhttp.nonProxyHosts=none", "-cp", "classes:lib/*", "Spring")
	})
}

// hide starts a forward proxy which finds nothing at the place of the document, and returns its address.
func hide(t *testing.T, document string) string {
	t.Helper()
	forward := &httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, document) {
			http.NotFound(w, r)
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return must.Get(url.Parse(server.URL)).Host
}

// withDocuments calls script once for each issuer and each document that it is to read, and compares its outcomes with
// the table. The first variable of the environment names the document.
func withDocuments(t *testing.T, script func(t *testing.T, environment []string) string) {
	t.Helper()
	const id, secret = "odd+%:", "a-secret+with%odd:marks" // both need escapes
	signer := jwstest.NewSigner("ES256")
	keyed, older := keyedClient("keyed", signer), keyedClient("keyed-older", signer)
	older.UntypedAssertionsUntil, older.OlderAudiencesUntil = time.Now().Add(time.Hour), time.Now().Add(time.Hour)
	for _, path := range issuerPaths {
		issuer := newIssuer(t, tokentest.Path(path))
		mcp := "http://" + freeport.Address(t) + "/mcp"
		issuer.Apply(t, registry.Manifest{
			Resources: []registry.Resource{{ID: must.Get(oauth.ParseResource(mcp)), Scopes: must.Get(oauth.ParseScopes("mcp.call"))}},
			Clients: []registry.ClientSpec{
				client(id, secret, "api1 other.read"),
				client("plain", tokentest.Secret, "api1 mcp.call"), // for those that encode neither before they send them as Basic
				keyed, older,
			},
		})
		for _, document := range documents {
			t.Run(document+path, func(t *testing.T) {
				output := script(t, []string{
					"DOCUMENT=" + document, "ISSUER=" + issuer.URL, "CLIENT_ID=" + id, "CLIENT_SECRET=" + secret, "RESOURCE=" + res1,
					"SCOPE=api1", "OTHER_SCOPE=api2", "PLAIN_ID=plain", "PLAIN_SECRET=" + tokentest.Secret,
					"MCP_RESOURCE=" + mcp, "MCP_SCOPE=mcp.call",
					"KEYED_ID=keyed", "OLDER_ID=keyed-older", "KEY_JWK=" + privateJWK(t, signer),
				})
				wantDocumented(t, document, parseOutcomes(t, output)...)
			})
		}
	}
}

// workingCopy copies a directory of testdata, so that nothing is installed into the repository. It ends the test if a
// program is missing.
func workingCopy(t *testing.T, name string, programs ...string) string {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the conformance tests need %s: %v", strings.Join(programs, " and "), err)
		}
	}
	dir := t.TempDir()
	must.Succeed(t, os.CopyFS(dir, os.DirFS(filepath.Join("testdata", name))))
	return dir
}

// run runs a program in dir, with environment added to the environment of the test, and returns what it printed.
func run(t *testing.T, dir string, environment []string, program string, arguments ...string) string {
	t.Helper()
	if strings.Contains(program, "/") {
		program = filepath.Join(dir, program)
	}
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Dir, command.Env = dir, append(os.Environ(), environment...)
	var output, complaints bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaints
	if err := command.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", command, err, &output, &complaints)
	}
	return output.String()
}

// keyedClient returns a client with a key and no secret.
func keyedClient(id string, signer jwstest.Signer) registry.ClientSpec {
	spec := client(id, "", "api1")
	spec.Keys = must.Get(jwks.NewDocument(signer.Key()))
	return spec
}

// privateJWK returns the private key of a signer, an EC key, as a JWK (RFC 7518 §6.2.2).
func privateJWK(t *testing.T, signer jwstest.Signer) string {
	t.Helper()
	private, ok := signer.Private.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("got a %T", signer.Private)
	}
	return string(must.Get(json.Marshal(struct {
		jwks.JWK

		D string `json:"d"`
	}{signer.JWK(), base64.RawURLEncoding.EncodeToString(must.Get(private.Bytes()))})))
}
