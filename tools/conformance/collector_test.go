//go:build conformance

package conformance_test

import (
	"testing"

	"github.com/open-telemetry/opentelemetry-collector-contrib/extension/oidcauthextension"
	collector "go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/extension/extensionauth"
	"go.opentelemetry.io/collector/extension/extensiontest"
	"go.yaml.in/yaml/v3"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestConformanceCollector authenticates a sender of telemetry by the extension of the OpenTelemetry Collector that checks tokens,
// with the settings of docs/clients.md. The extension runs without the rest of a Collector.
func TestConformanceCollector(t *testing.T) {
	t.Parallel()
	for _, path := range issuerPaths {
		issuer := newIssuer(t, tokentest.Path(path))
		issuer.Apply(t, registry.Manifest{Clients: []registry.ClientSpec{client("both", tokentest.Secret, "api1 other.read")}})
		server := startExtension(t, documented(t, "OpenTelemetry Collector", 0, map[string]string{
			"https://auth.example.com": issuer.URL, "https://orders.internal": res1,
		}))
		for _, test := range []struct {
			name, client, token string
		}{
			{"a token", "svc", issuer.Token(t, "svc", res1, "api1")},
			{"a forged token", "", issuer.Forge(t, map[string]any{"aud": res1})},
			{"an expired token", "", issuer.Sign(t, map[string]any{"aud": res1, "exp": issuer.Now().Unix() - 60})},
			{"a token for another resource", "", issuer.Token(t, "both", res2, "other.read")},
			{"no token", "", ""},
		} {
			ctx, err := server.Authenticate(t.Context(), map[string][]string{"Authorization": {"Bearer " + test.token}})
			if (err == nil) != (test.client != "") {
				t.Errorf("path %q, %s: got the error %v", path, test.name, err)
			}
			if err == nil && collector.FromContext(ctx).Auth.GetAttribute("subject") != test.client {
				t.Errorf("path %q, %s: got the subject %v, want %s", path, test.name, collector.FromContext(ctx).Auth.GetAttribute("subject"), test.client)
			}
		}
		if _, err := server.Authenticate(t.Context(), nil); err == nil {
			t.Errorf("path %q: got a call without metadata accepted", path)
		}
	}
}

// startExtension starts the extension with the settings of a Collector, until the test ends.
func startExtension(t *testing.T, settings string) extensionauth.Server {
	t.Helper()
	var config struct {
		Extensions map[string]map[string]any `yaml:"extensions"`
	}
	must.Succeed(t, yaml.Unmarshal([]byte(settings), &config))
	factory := oidcauthextension.NewFactory()
	extensionConfig := factory.CreateDefaultConfig()
	must.Succeed(t, confmap.NewFromStringMap(config.Extensions["oidc"]).Unmarshal(extensionConfig))
	extension, err := factory.Create(t.Context(), extensiontest.NewNopSettings(factory.Type()), extensionConfig)
	must.Succeed(t, err)
	must.Succeed(t, extension.Start(t.Context(), componenttest.NewNopHost()))
	t.Cleanup(func() { _ = extension.Shutdown(t.Context()) })
	server, ok := extension.(extensionauth.Server)
	if !ok {
		t.Fatalf("got a %T, which authenticates nothing", extension)
	}
	return server
}
