package main

import (
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"os"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/service/must"
)

// TestAlgorithm expects the algorithm of a JWT, and an error for a response without a token.
func TestAlgorithm(t *testing.T) {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"ES256"}`))
	for name, c := range map[string]struct{ response, want, err string }{
		"JWT":               {`{"access_token":"` + header + `.e30.AA"}`, "ES256", ""},
		"opaque":            {`{"access_token":"ory_at_AAAA.BBBB"}`, opaque, ""},
		"no token":          {`{"error":"invalid_client"}`, "", "no token"},
		"not even JSON":     {`<html>`, "", "invalid character"},
		"not a JOSE header": {`{"access_token":"e30.e30.AA"}`, opaque, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := algorithmOf([]byte(c.response))
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q and the error %v, want %q and %q", got, err, c.want, c.err)
			}
		})
	}
}

// TestReport expects a row for each server in both tables, and a bar in the picture.
func TestReport(t *testing.T) {
	var results []*result
	for i := range contestants {
		results = append(results, &result{
			contestant: &contestants[i], start: 0.123, idle: 20e6, peak: 45e6, rates: []float64{900, 1200, 1000.4}, cpu: []float64{91, 90, 99},
			p50: []float64{1, 2, 3}, p99: []float64{5, 6, 7},
		})
	}
	got := string(report("a machine", results, false))
	for _, want := range []string{
		"| Grantor | defaults | ES256 | 1,000 (900–1,200) | 91 (90–99) | 2.0, 6.0 | 20.0 MB | 45.0 MB | 0.12 |\n",
		"| Grantor | defaults | " + grantorWork + " |\n", "a machine", "](" + picture + ")",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report has no %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, quickWarning) || !strings.Contains(string(report("", results, true)), quickWarning) {
		t.Error("want the warning in the report of a quick run, and in no other")
	}
	svg := draw(results)
	if bars, want := strings.Count(string(svg), `height="16"`), len(contestants); bars != want {
		t.Errorf("got %d bars, want %d", bars, want)
	}
	must.Succeed(t, xml.Unmarshal(svg, new(struct{})))
}

// TestRealms expects that the realms are JSON, and that the lean one has the only scope that the load requests.
func TestRealms(t *testing.T) {
	realms := must.Get((&lab{secret: "secret"}).realms())
	for name, want := range map[string][]string{"default": nil, "best": {scope}} {
		var realm struct {
			Realm   string `json:"realm"`
			Clients []struct {
				Secret               string   `json:"secret"`
				OptionalClientScopes []string `json:"optionalClientScopes"`
			} `json:"clients"`
		}
		must.Succeed(t, json.Unmarshal(realms[name], &realm))
		if len(realm.Clients) != 1 || realm.Realm != name || realm.Clients[0].Secret != "secret" ||
			strings.Join(realm.Clients[0].OptionalClientScopes, " ") != strings.Join(want, " ") {
			t.Errorf("%s: got %+v", name, realm)
		}
	}
}

// TestVersions expects that the report names the versions that are built.
func TestVersions(t *testing.T) {
	for file, want := range map[string]string{
		"../hydra/go.mod": "github.com/ory/hydra/v2 v" + hydraVersion,
		"spring/pom.xml":  "<version>" + strings.TrimPrefix(springVersion, "Spring Boot ") + "</version>",
	} {
		if content := must.Get(os.ReadFile(file)); !strings.Contains(string(content), want) {
			t.Errorf("%s does not contain %q", file, want)
		}
	}
}
