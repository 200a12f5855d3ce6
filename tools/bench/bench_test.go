package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
		{[]float64{7}, spread{7, 7, 7}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("of %v: got %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(spreadOf(nil).median) {
		t.Error("of nothing there is a median")
	}
}

func TestPercentile(t *testing.T) {
	var values []float64
	for v := 100.0; v >= 1; v-- {
		values = append(values, v)
	}
	for percent, want := range map[float64]float64{0: 1, 50: 50, 99: 99, 100: 100} {
		if got := percentile(values, percent); got != want {
			t.Errorf("%g %%: got %g, want %g", percent, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7.5: "7.50", 12: "12", 999: "999", 1000: "1,000", 1234567: "1,234,567", -4321: "-4,321"} {
		if got := count(v); got != want {
			t.Errorf("%g: got %s, want %s", v, got, want)
		}
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU("42 (a b) c) S 1 1 1 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 8 0 1000 0 0")
	if err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v; want 2s", got, err)
	}
	if _, err := parseCPU("42 (a) S 1"); err == nil {
		t.Error("half a line is read")
	}
}

// TestMarks has a figure on either side of each kind of target: one on the wrong side is marked missed.
func TestMarks(t *testing.T) {
	for _, c := range []struct {
		target target
		value  float64
		met    bool
	}{
		{atLeast(0.85), 0.85, true},
		{atLeast(0.85), 0.8499, false},
		{atMost(6, "allocations"), 6, true},
		{atMost(6, "allocations"), 7, false},
		{below(1000, "ns"), 999, true},
		{below(1000, "ns"), 1000, false},
		{atLeast(0.85), math.NaN(), false},
		{target{}, 1, false},
	} {
		if c.target.met(c.value) != c.met {
			t.Errorf("%g against %s: want met %t", c.value, c.target.text("%g"), c.met)
		}
	}
	f := &findings{title: "Section", notes: "pairs"}
	f.judge("fast", "floor", atLeast(0.85), 0.9, "0.90")
	f.judge("slow", "floor", atLeast(0.85), 0.8, "0.80")
	report, err := writeReport("a machine", []*findings{f})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| fast | floor | ≥ 0.85 | 0.90 | **met** |\n", "| slow | floor | ≥ 0.85 | 0.80 | **missed** |\n", "- slow: ",
	} {
		if !strings.Contains(string(report), want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if _, err := writeReport("", []*findings{{notes: "no such part"}}); err == nil {
		t.Error("a section without notes is written")
	}
}

func TestReasons(t *testing.T) {
	parts := notes("## one\n\ntext\n\n## misses\n\n- `a, b`: because\n  of this\n- `c`: that\n")
	if parts["one"] != "text" {
		t.Errorf("got %q", parts["one"])
	}
	found := reasons(parts["misses"])
	if len(found) != 2 || found["a, b"] != "because of this" || found["c"] != "that" {
		t.Errorf("got %v", found)
	}
}
