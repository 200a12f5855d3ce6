//go:build conformance

package conformance_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/freeport"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformanceKafka runs a broker of Apache Kafka that checks tokens, and sends and receives with tokens by the two clients of
// Kafka that request them themselves: librdkafka and that of Java. All have the settings of docs/clients.md.
func TestConformanceKafka(t *testing.T) {
	t.Parallel()
	dir := workingCopy(t, "kafka", "java", "mvn", "python3")
	run(t, dir, nil, "mvn", "--batch-mode", "--quiet", "--strict-checksums",
		"org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory=lib")
	run(t, dir, nil, "python3", "-m", "venv", "venv")
	run(t, dir, nil, "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--require-hashes", "-r", "requirements.txt")
	issuer := newIssuer(t)
	issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{client("orders", tokentest.Secret, "api1")}})
	address := startKafka(t, dir, issuer)

	// The Java client creates the topic.
	clientSettings(t, dir, "java.properties", 1, issuer)
	topics := append(kafkaJVM(issuer.URL+"/connect/token"), "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", address,
		"--command-config", "java.properties", "--topic", "orders")
	run(t, dir, nil, "java", append(topics, "--create")...)
	if got := run(t, dir, nil, "java", append(topics, "--describe")...); !strings.Contains(got, "PartitionCount: 1") {
		t.Errorf("got %q, want the topic", got)
	}

	clientSettings(t, dir, "librdkafka.properties", 2, issuer)
	appendTo(t, filepath.Join(dir, "librdkafka.properties"), "bootstrap.servers="+address+"\n")
	run(t, dir, nil, "venv/bin/python", "kafka_client.py", "librdkafka.properties", "orders",
		issuer.Forge(t, map[string]any{"aud": res1}), issuer.Sign(t, map[string]any{"aud": res1, "exp": issuer.Now().Unix() - 3600}),
		issuer.Sign(t, map[string]any{"aud": res2}))
}

// startKafka starts a broker in dir that checks tokens by the key set of the issuer, waits until it serves, and
// returns its address.
func startKafka(t *testing.T, dir string, issuer *tokentest.Issuer) string {
	t.Helper()
	broker, internal, controller := freeport.Address(t), freeport.Address(t), freeport.Address(t)
	data := filepath.Join(dir, "data")
	settings := documented(t, "Kafka", 0, map[string]string{"https://auth.example.com": issuer.URL, "https://orders.internal": res1})
	appendTo(t, filepath.Join(dir, "broker.properties"), settings+"log.dirs="+data+"\ncontroller.quorum.bootstrap.servers="+controller+
		"\nlisteners=CLIENT://"+broker+",INTERNAL://"+internal+",CONTROLLER://"+controller+
		"\nadvertised.listeners=CLIENT://"+broker+",INTERNAL://"+internal+"\n")
	run(t, dir, nil, "java", "-XX:TieredStopAtLevel=1", "-cp", "lib/*", "kafka.tools.StorageTool", "format", "--standalone",
		"-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", "broker.properties")
	command := exec.Command("java", append(kafkaJVM(issuer.URL+"/.well-known/jwks.json"), "kafka.Kafka", "broker.properties")...)
	command.Dir = dir
	log := startServer(t, command)
	until(t, log, "the broker starts", func() bool { return strings.Contains(log.String(), "Kafka Server started") })
	return broker
}

// kafkaJVM returns the arguments of java for a program of Kafka that may request the URL.
func kafkaJVM(url string) []string {
	return []string{
		"-Xmx384m", "-XX:TieredStopAtLevel=1", "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=" + url, "-cp", "lib/*",
	}
}

// clientSettings writes the n-th block of settings for Kafka into a file, for the client orders of the issuer.
func clientSettings(t *testing.T, dir, name string, n int, issuer *tokentest.Issuer) {
	t.Helper()
	settings := documented(t, "Kafka", n, map[string]string{
		"SASL_SSL": "SASL_PLAINTEXT", "https://auth.example.com": issuer.URL, "secret-from-registration": tokentest.Secret, "orders.publish": "api1",
	})
	must.Succeed(t, os.WriteFile(filepath.Join(dir, name), []byte(settings), 0o600))
}

// appendTo appends text to a file.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	old := must.Get(os.ReadFile(path))
	must.Succeed(t, os.WriteFile(path, append(old, text...), 0o600))
}
