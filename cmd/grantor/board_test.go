package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/registry"
)

// metrics has the name of a metric in Prometheus → its family, as /metrics of an issuer has it.
type metrics map[string]*dto.MetricFamily

// exercised runs an issuer through whatever there is a metric for, and gives its metrics.
func exercised(t *testing.T) metrics {
	t.Helper()
	redis := redistest.New(t)
	authority := servetest.NewAuthority(t)
	cert, key := authority.WriteLeaf(t, t.TempDir(), 2)
	generated := registry.NewSecret()
	manifest := strings.Replace(servetest.Manifest, "client_secret: orders-api-secret", "client_secret: "+generated, 1)
	r, err := servetest.Try(t, append(servetest.Production(redis, servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", manifest)), "--issuer=http://localhost:1",
		"--grpc-endpoint=localhost:1", "--tls-cert-file="+cert, "--tls-key-file="+key,
		"--tokens-per-client=4")...)
	if err != nil {
		t.Fatal(err)
	}
	return exercise(t, r, redis, generated, &tls.Config{RootCAs: authority.Pool(), MinVersion: tls.VersionTLS13})
}

// exercise asks for tokens, rightly and wrongly, introspects and revokeFor, follows the revocations, and then takes the Redis
// away.
func exercise(t *testing.T, r *servetest.Replica, redis *redistest.Server, generated string, trust *tls.Config) metrics {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: trust}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	post := func(path string, form url.Values) string {
		t.Helper()
		answer, err := client.PostForm("https://"+r.HTTPAddr()+path, form)
		if err != nil {
			t.Fatal(err)
		}
		return servetest.ReadBody(t, answer)
	}
	who := func(id, secret string, more ...string) url.Values {
		form := url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}}
		for i := 0; i < len(more); i += 2 {
			form.Set(more[i], more[i+1])
		}
		return form
	}
	for range 2 { // computed, then remembered
		post("/connect/token", who("background-service", "service-secret-here"))
	}
	var issued struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(post("/connect/token", who("background-service", "service-secret-here"))), &issued); err != nil {
		t.Fatal(err)
	}
	post("/connect/token", who("background-service", "wrong"))
	post("/connect/token", who("nobody", generated))
	post("/connect/token", who("background-service", "service-secret-here", "scope", "orders.write"))
	for range 2 {
		post("/connect/introspect", who("orders-api", generated, "token", issued.Token))
	}
	post("/connect/introspect", who("background-service", "service-secret-here", "token", issued.Token))
	for range 2 { // one more than it may
		post("/connect/token", who("background-service", "service-secret-here"))
	}
	post("/nowhere", nil)
	stream, err := grantorv1.NewRevocationServiceClient(servetest.DialTLS(t, r.GRPCAddr(), trust)).
		WatchRevocations(t.Context(), &grantorv1.WatchRevocationsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	post("/connect/revoke", who("background-service", "service-secret-here", "token", issued.Token))
	redis.Stop()
	post("/connect/token", who("somebody-else", generated))
	_, body := servetest.Get(t, "http://"+r.OpsAddr()+"/metrics")
	redis.Start() // for the end of the test
	parse := expfmt.NewTextParser(model.UTF8Validation)
	found, err := parse.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// has reports whether a metric, or a histogram of which it is a part, is there with such a label, and value unless that is
// empty.
func (m metrics) has(name, label, value string) bool {
	family, ok := m[name]
	for _, part := range []string{"_bucket", "_count", "_sum"} {
		if of, cut := strings.CutSuffix(name, part); cut && !ok {
			family, ok = m[of]
			ok = ok && family.GetType() == dto.MetricType_HISTOGRAM
		}
	}
	if !ok || label == "" {
		return ok
	}
	switch label {
	case model.JobLabel, model.InstanceLabel: // Prometheus adds them
		return true
	case model.BucketLabel:
		return strings.HasSuffix(name, "_bucket")
	}
	for _, series := range family.GetMetric() {
		for _, pair := range series.GetLabel() {
			if pair.GetName() == label && (value == "" || pair.GetValue() == value) {
				return true
			}
		}
	}
	return false
}

// check holds an expression to the metrics: it parses, and each metric in it is there, with each label that is selected or
// grouped by.
func (m metrics) check(t *testing.T, place, expression string) {
	t.Helper()
	tree, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
	if err != nil {
		t.Errorf("%s: %v\n%s", place, err, expression)
		return
	}
	var names []string
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		names = append(names, selector.Name)
		if !m.has(selector.Name, "", "") {
			t.Errorf("%s: there is no metric %s", place, selector.Name)
			return nil
		}
		for _, matcher := range selector.LabelMatchers {
			value := ""
			if matcher.Type == labels.MatchEqual {
				value = matcher.Value
			}
			if matcher.Name != labels.MetricName && !m.has(selector.Name, matcher.Name, value) {
				t.Errorf("%s: there is no %s with %s=%q", place, selector.Name, matcher.Name, value)
			}
		}
		return nil
	})
	parser.Inspect(tree, func(node parser.Node, _ []parser.Node) error {
		if group, ok := node.(*parser.AggregateExpr); ok {
			for _, label := range group.Grouping {
				if !slices.ContainsFunc(names, func(name string) bool { return m.has(name, label, "") }) {
					t.Errorf("%s: no metric in it has the label %s", place, label)
				}
			}
		}
		return nil
	})
	if len(names) == 0 {
		t.Errorf("%s asks for no metric", place)
	}
}

// board is the dashboard as Grafana reads it, with the fields that ours has and no others.
type board struct {
	UID, Title, Description, Timezone, Refresh, WeekStart string
	Tags                                                  []string
	SchemaVersion, Version, GraphTooltip                  int
	FiscalYearStartMonth                                  int
	Editable                                              bool
	Time                                                  struct{ From, To string }
	Timepicker                                            struct{}
	Links                                                 []any
	Annotations                                           map[string]any
	Templating                                            struct {
		List []struct {
			Type, Name, Label, Definition, Regex, AllValue string
			Datasource                                     datasource
			Query                                          any
			IncludeAll, Multi, SkipURLSync                 bool
			Current                                        map[string]any
			Refresh, Sort, Hide                            int
			Options                                        []any
		}
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		Collapsed                bool
		Panels                   []any
		Datasource               datasource
		GridPos                  place
		FieldConfig, Options     map[string]any
		Targets                  []struct {
			RefID, EditorMode, Expr, LegendFormat string
			Datasource                            datasource
			Range, Instant                        bool
		}
	}
}

type datasource struct{ Type, UID string }

// place is where a panel is, in a grid of 24 columns.
type place struct{ X, Y, W, H int }

func (p place) overlaps(q place) bool {
	return p.X < q.X+q.W && q.X < p.X+p.W && p.Y < q.Y+q.H && q.Y < p.Y+p.H
}

// TestBoard holds the dashboard to what Grafana takes, and its expressions to the metrics.
func TestBoard(t *testing.T) {
	content, err := os.ReadFile("../../deploy/grafana/grantor.json")
	if err != nil {
		t.Fatal(err)
	}
	var b board
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&b); err != nil { //nolint:musttag // its names differ by case alone
		t.Fatal(err)
	}
	m := exercised(t)
	ids, titles := make(map[int]bool), make(map[string]bool)
	for i, panel := range b.Panels {
		if ids[panel.ID] || titles[panel.Title] {
			t.Errorf("%s: its id %d or its title is taken", panel.Title, panel.ID)
		}
		ids[panel.ID], titles[panel.Title] = true, true
		for _, other := range b.Panels[:i] {
			if panel.GridPos.overlaps(other.GridPos) || panel.GridPos.X+panel.GridPos.W > 24 {
				t.Errorf("%s: it lies on %s, or outside", panel.Title, other.Title)
			}
		}
		if panel.Type == "row" {
			continue
		}
		if panel.Datasource != (datasource{"prometheus", "${datasource}"}) || strings.Count(panel.Description, ".") < 2 || len(panel.Targets) == 0 {
			t.Errorf("%s: it lacks the data source, what to do, or an expression", panel.Title)
		}
		for _, target := range panel.Targets {
			if !strings.Contains(target.Expr, `job=~"$job", instance=~"$instance"`) {
				t.Errorf("%s does not follow the variables: %s", panel.Title, target.Expr)
			}
			m.check(t, panel.Title, strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(target.Expr))
		}
	}
	if len(b.Panels) < 20 || b.SchemaVersion != 42 {
		t.Errorf("%d panels of version %d", len(b.Panels), b.SchemaVersion)
	}
	t.Run("alerts", func(t *testing.T) { checkAlerts(t, m) })
	t.Run("documentation", func(t *testing.T) { checkMetricsTable(t, m) })
}

// checkAlerts holds the alert rules to their form, and their expressions to the metrics.
func checkAlerts(t *testing.T, m metrics) {
	t.Helper()
	content, err := os.ReadFile("../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Labels           map[string]string
				Annotations      map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			m.check(t, rule.Alert, rule.Expr)
			if _, err := model.ParseDuration(rule.For); rule.For != "" && err != nil {
				t.Errorf("%s: %v", rule.Alert, err)
			}
			if !slices.Contains([]string{"warning", "critical"}, rule.Labels["severity"]) ||
				rule.Annotations["summary"] == "" || len(rule.Annotations["description"]) < 40 {
				t.Errorf("%s: it lacks a severity, a summary or what to do", rule.Alert)
			}
			for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(fmt.Sprint(rule.Annotations), -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + label[1] + `\b[^)]*\)`).MatchString(rule.Expr) {
					t.Errorf("%s: its expression keeps no label %s", rule.Alert, label[1])
				}
			}
		}
	}
}

// TestAlerts has Prometheus evaluate the alert rules over what happens.
func TestAlerts(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", "testdata/alerts.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// checkMetricsTable holds the first table of docs/telemetry.md to the metrics.
func checkMetricsTable(t *testing.T, m metrics) {
	t.Helper()
	content, err := os.ReadFile("../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	section, _, _ := strings.Cut(string(content), "\n## Traces")
	told := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\| (\\w+) \\| (\\S*) *\\| (.*?) \\| .* \\|$").FindAllStringSubmatch(section, -1) {
		name, kind, unit := strings.ReplaceAll(row[1], ".", "_"), row[2], row[3]
		if unit == "s" {
			name += "_seconds"
		}
		if kind == "counter" {
			name += "_total"
		}
		var with []string
		for _, label := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[4], -1) {
			with = append(with, strings.ReplaceAll(label[1], ".", "_"))
		}
		slices.Sort(with)
		told[name] = fmt.Sprint(kind, with)
	}
	is := make(map[string]string)
	for name, family := range m {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || name == "target_info" {
			continue
		}
		with := make(map[string]bool)
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				with[label.GetName()] = true
			}
		}
		is[name] = fmt.Sprint(strings.ToLower(family.GetType().String()), slices.Sorted(maps.Keys(with)))
	}
	for name, what := range is {
		if told[name] != what {
			t.Errorf("%s is %s; the table says %q", name, what, told[name])
		}
	}
	for name := range told {
		if is[name] == "" {
			t.Errorf("the table has %s, which is not measured", name)
		}
	}
}
