package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// step is the time between two points, and between two scrapes.
	step = 2 * time.Second
	// rateInterval is the window of rates; Grafana's $__rate_interval stands for it in expressions.
	rateInterval = "15s"
)

// line is a time series.
type line struct {
	labels map[string]string
	points []point
}

// point is a value at a Unix time in seconds.
type point struct{ at, value float64 }

// query evaluates an expression of a panel over a range of time. Points that are not finite are left out.
func (d *deployment) query(ctx context.Context, expr string, from, to time.Time) ([]line, error) {
	expr = strings.NewReplacer("$__rate_interval", rateInterval, "$job", ".*", "$instance", ".*").Replace(expr)
	query := url.Values{
		"query": {expr}, "step": {strconv.Itoa(int(step.Seconds()))},
		"start": {strconv.FormatInt(from.Unix(), 10)}, "end": {strconv.FormatInt(to.Unix(), 10)},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.prometheus+"/api/v1/query_range?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Error string
		Data  struct {
			Result []struct {
				Metric map[string]string
				Values [][2]any
			}
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil { //nolint:musttag // the field names differ only in case
		return nil, err
	}
	if answer.Error != "" {
		return nil, fmt.Errorf("%s: %s", expr, answer.Error)
	}
	var lines []line
	for _, series := range answer.Data.Result {
		l := line{labels: series.Metric}
		for _, v := range series.Values {
			at, _ := v[0].(float64)
			text, _ := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if err == nil && !math.IsNaN(value) && !math.IsInf(value, 0) {
				l.points = append(l.points, point{at, value})
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	return lines, nil
}
