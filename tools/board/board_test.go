package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v4"
)

// board has the fields of a Grafana dashboard that deploy/grafana/grantor.json uses, and no others.
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
		GridPos                  area
		FieldConfig, Options     map[string]any
		Targets                  []struct {
			RefID, EditorMode, Expr, LegendFormat string
			Datasource                            datasource
			Range, Instant                        bool
		}
	}
}

type datasource struct{ Type, UID string }

// area is the position and size of a panel, in a grid of 24 columns.
type area struct{ X, Y, W, H int }

func (a area) overlaps(b area) bool {
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

// TestBoard checks that Grafana can load the dashboard, and that the expressions of the dashboard and of the alert rules
// and the table in docs/telemetry.md agree with the metrics of a running issuer.
func TestBoard(t *testing.T) {
	var b board
	decoder := json.NewDecoder(bytes.NewReader(readFile("deploy/grafana/grantor.json")))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&b); err != nil { //nolint:musttag // the field names differ only in case
		t.Fatal(err)
	}
	m := startReplica(t).exercise(t)
	ids, titles := make(map[int]bool), make(map[string]bool)
	for i, panel := range b.Panels {
		if ids[panel.ID] || titles[panel.Title] {
			t.Errorf("%s: another panel has its id %d or its title", panel.Title, panel.ID)
		}
		ids[panel.ID], titles[panel.Title] = true, true
		for _, other := range b.Panels[:i] {
			if panel.GridPos.overlaps(other.GridPos) || panel.GridPos.X+panel.GridPos.W > 24 {
				t.Errorf("%s: overlaps %s or exceeds the grid", panel.Title, other.Title)
			}
		}
		if panel.Type == "row" {
			continue
		}
		if panel.Datasource != (datasource{"prometheus", "${datasource}"}) || strings.Count(panel.Description, ".") < 2 || len(panel.Targets) == 0 {
			t.Errorf("%s: lacks the data source, a description of what to do, or an expression", panel.Title)
		}
		for _, target := range panel.Targets {
			if !strings.Contains(target.Expr, `job=~"$job", instance=~"$instance"`) {
				t.Errorf("%s: does not select by the variables: %s", panel.Title, target.Expr)
			}
			m.check(t, panel.Title, strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*").Replace(target.Expr))
		}
	}
	if len(b.Panels) < 20 || b.SchemaVersion != 42 {
		t.Errorf("got %d panels of schema version %d, want at least 20 of version 42", len(b.Panels), b.SchemaVersion)
	}
	t.Run("alerts", func(t *testing.T) { checkAlerts(t, "alerts.yaml", m) })
	t.Run("documentation", func(t *testing.T) { checkMetricsTable(t, m) })
}

// checkAlerts checks the fields of a file of alert rules, and their expressions against the metrics.
func checkAlerts(t *testing.T, file string, m metrics) {
	t.Helper()
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
	decoder := yaml.NewDecoder(bytes.NewReader(readFile("deploy/prometheus/" + file)))
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
				t.Errorf("%s: lacks a severity, a summary or a description of what to do", rule.Alert)
			}
			for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(fmt.Sprint(rule.Annotations), -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + label[1] + `\b[^)]*\)`).MatchString(rule.Expr) {
					t.Errorf("%s: the annotations use the label %s, which the expression drops", rule.Alert, label[1])
				}
			}
		}
	}
}

// TestAlerts runs the cases of testdata, which say what series raise which alerts.
func TestAlerts(t *testing.T) {
	for _, cases := range []string{"testdata/alerts.yaml", "testdata/guard-alerts.yaml"} {
		out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", cases).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", cases, err, out)
		}
	}
}

// TestGuardAlerts checks that the expressions of the guard's alert rules agree with the metrics of a running guard.
func TestGuardAlerts(t *testing.T) {
	m := guardMetrics(t)
	m["up"] = new(dto.MetricFamily) // Prometheus adds it
	checkAlerts(t, "guard-alerts.yaml", m)
}

// checkMetricsTable checks that the first table of docs/telemetry.md lists the metrics with their types and labels.
func checkMetricsTable(t *testing.T, m metrics) {
	t.Helper()
	section, _, _ := strings.Cut(string(readFile("docs/telemetry.md")), "\n## Traces")
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\| (\\w+) \\| (\\S*) *\\| (.*?) \\| .* \\|$").FindAllStringSubmatch(section, -1) {
		name, kind, unit := strings.ReplaceAll(row[1], ".", "_"), row[2], row[3]
		if unit == "s" {
			name += "_seconds"
		}
		if kind == "counter" {
			name += "_total"
		}
		var labels []string
		for _, label := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[4], -1) {
			labels = append(labels, strings.ReplaceAll(label[1], ".", "_"))
		}
		slices.Sort(labels)
		documented[name] = fmt.Sprint(kind, labels)
	}
	measured := make(map[string]string)
	for name, family := range m {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || name == "target_info" {
			continue
		}
		labels := make(map[string]bool)
		for _, series := range family.GetMetric() {
			for _, label := range series.GetLabel() {
				labels[label.GetName()] = true
			}
		}
		measured[name] = fmt.Sprint(strings.ToLower(family.GetType().String()), slices.Sorted(maps.Keys(labels)))
	}
	for name, got := range measured {
		if documented[name] != got {
			t.Errorf("%s is a %s, and documented as %q", name, got, documented[name])
		}
	}
	for name := range documented {
		if measured[name] == "" {
			t.Errorf("%s is documented and not measured", name)
		}
	}
}
