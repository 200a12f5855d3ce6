package figures_test

import (
	"math"
	"testing"

	"github.com/grantorhq/grantor/tools/figures"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   figures.Spread
	}{
		{[]float64{3, 1, 2}, figures.Spread{Median: 2, Min: 1, Max: 3}},
		{[]float64{4, 1, 2, 3}, figures.Spread{Median: 2.5, Min: 1, Max: 4}},
		{[]float64{7}, figures.Spread{Median: 7, Min: 7, Max: 7}},
	} {
		if got := figures.NewSpread(c.values); got != c.want {
			t.Errorf("of %v: got %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(figures.NewSpread(nil).Median) {
		t.Error("got a median of no values, want NaN")
	}
}

func TestPercentile(t *testing.T) {
	var values []float64
	for v := 100.0; v >= 1; v-- {
		values = append(values, v)
	}
	for percent, want := range map[float64]float64{0: 1, 50: 50, 99: 99, 100: 100} {
		if got := figures.Percentile(values, percent); got != want {
			t.Errorf("%g %%: got %g, want %g", percent, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 7.5: "7.50", 12: "12", 999: "999", 1000: "1,000", 1234567: "1,234,567", -4321: "-4,321"} {
		if got := figures.Count(v); got != want {
			t.Errorf("%g: got %s, want %s", v, got, want)
		}
	}
}
