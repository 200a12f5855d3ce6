package main

import (
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// metrics maps the names of metrics to what a replica reports on /metrics.
type metrics map[string]*dto.MetricFamily

// has reports whether a metric, or the histogram that it is part of, has the label, with the value unless value is empty.
func (m metrics) has(name, label, value string) bool {
	family, ok := m[name]
	for _, part := range []string{"_bucket", "_count", "_sum"} {
		if histogram, cut := strings.CutSuffix(name, part); cut && !ok {
			family, ok = m[histogram]
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

// check fails the test unless the expression parses, every metric that it selects exists, and so does every label that it
// selects or groups by. place names the expression.
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
					t.Errorf("%s: none of its metrics has the label %s", place, label)
				}
			}
		}
		return nil
	})
	if len(names) == 0 {
		t.Errorf("%s: selects no metric", place)
	}
}
