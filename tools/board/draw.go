package main

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sizes in pixels: a column and a row of Grafana's grid, the gap between panels, and the title above them.
const (
	columnWidth, rowHeight, gap = 66, 27, 8
	titleHeight                 = 30
)

// palette lists the colours of the lines of a panel, in order. colours maps the names of colours in thresholds to their
// values.
var (
	palette = []string{"#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#37872d", "#8ab8ff", "#fade2a", "#ffa6b0", "#c0d8ff", "#96d98d"}
	colours = map[string]string{"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}
)

// draw draws the dashboard over a range of time as SVG. query evaluates an expression over that range.
func draw(b *dashboard, began, ended time.Time, query func(expr string) ([]line, error)) ([]byte, error) {
	bottom := 0
	for _, p := range b.Panels {
		bottom = max(bottom, p.GridPos.Y+p.GridPos.H)
	}
	width, height := 24*columnWidth+2*gap, bottom*rowHeight+2*gap+titleHeight
	var svg bytes.Buffer
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="Inter,Helvetica,Arial,sans-serif" font-size="11" fill="#ccccdc">`, width, height)
	fmt.Fprintf(&svg, `<rect width="100%%" height="100%%" fill="#111217"/><text x="%d" y="22" font-size="17" font-weight="600">%s</text>`, gap+4, html.EscapeString(b.Title))
	for i := range b.Panels {
		p := &b.Panels[i]
		var lines []line
		for _, target := range p.Targets {
			found, err := query(target.Expr)
			if err != nil {
				return nil, err
			}
			for _, l := range found {
				l.labels = map[string]string{"": legend(target.LegendFormat, l.labels)}
				lines = append(lines, l)
			}
		}
		box := rect{gap + p.GridPos.X*columnWidth, titleHeight + gap + p.GridPos.Y*rowHeight, p.GridPos.W*columnWidth - gap, p.GridPos.H*rowHeight - gap}
		switch p.Type {
		case "row":
			fmt.Fprintf(&svg, `<text x="%d" y="%d" font-size="13" font-weight="600">%s</text>`, box.x+4, box.y+14, html.EscapeString(p.Title))
			continue
		case "stat":
			box.frame(&svg, p.Title)
			p.stat(&svg, box, lines)
		default:
			box.frame(&svg, p.Title)
			p.graph(&svg, box, float64(began.Unix()), float64(ended.Unix()), lines)
		}
	}
	svg.WriteString("</svg>\n")
	return svg.Bytes(), nil
}

// rect is an area of the picture, in pixels.
type rect struct{ x, y, w, h int }

// frame draws the background of a panel and its title.
func (r rect) frame(svg *bytes.Buffer, title string) {
	fmt.Fprintf(svg, `<rect x="%d" y="%d" width="%d" height="%d" rx="2" fill="#181b1f" stroke="#2c2f35"/>`, r.x, r.y, r.w, r.h)
	fmt.Fprintf(svg, `<text x="%d" y="%d" font-size="12" font-weight="500">%s</text>`, r.x+8, r.y+17, html.EscapeString(title))
}

// stat writes the last value of each series, in the colour of the highest threshold that the last of them reaches.
func (p *panel) stat(svg *bytes.Buffer, box rect, lines []line) {
	texts, colour := []string{}, "#73bf69"
	for _, l := range lines {
		value := l.points[len(l.points)-1].value
		if p.Options.TextMode == "name" {
			texts = append(texts, l.labels[""])
			continue
		}
		texts = append(texts, format(p.FieldConfig.Defaults.Unit, value, p.FieldConfig.Defaults.Decimals))
		for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
			if step.Value == nil || value >= *step.Value {
				colour = colours[step.Color]
			}
		}
	}
	text, size := strings.Join(texts, ", "), 30
	if text == "" {
		text, colour = "No data", "#8e8e99"
	}
	if len(text)*size*6/10 > box.w { // a character is about 0.6 times as wide as high
		size = max(11, box.w*10/6/len(text))
	}
	fmt.Fprintf(svg, `<text x="%d" y="%d" font-size="%d" font-weight="600" text-anchor="middle" fill="%s">%s</text>`,
		box.x+box.w/2, box.y+box.h/2+20, size, colour, html.EscapeString(text))
}

// graph draws the series over the time from one Unix time to another.
func (p *panel) graph(svg *bytes.Buffer, box rect, from, to float64, lines []line) {
	slices.SortStableFunc(lines, func(a, b line) int { return cmp.Compare(a.labels[""], b.labels[""]) })
	plot := rect{box.x + 58, box.y + 28, box.w - 70, box.h - 28 - 48}
	if len(lines) == 0 {
		fmt.Fprintf(svg, `<text x="%d" y="%d" text-anchor="middle" fill="#8e8e99">No data</text>`, box.x+box.w/2, box.y+box.h/2)
		return
	}
	if p.FieldConfig.Defaults.Custom.Stacking.Mode == "normal" {
		stack(lines)
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, l := range lines {
		for _, point := range l.points {
			low, high = min(low, point.value), max(high, point.value)
		}
	}
	for _, bound := range []*float64{p.FieldConfig.Defaults.Min, p.FieldConfig.Defaults.Custom.AxisSoftMin} {
		if bound != nil {
			low = min(*bound, low)
		}
	}
	tick := niceTick(p.FieldConfig.Defaults.Unit, (high-low)/4)
	low = math.Floor(low/tick) * tick
	high = max(math.Ceil(high/tick)*tick, low+tick)
	x := func(at float64) float64 { return float64(plot.x) + (at-from)/max(to-from, 1)*float64(plot.w) }
	y := func(value float64) float64 { return float64(plot.y+plot.h) - (value-low)/(high-low)*float64(plot.h) }
	for value := low; value <= high+tick/2; value += tick {
		fmt.Fprintf(svg, `<path d="M%d %.1fh%d" stroke="#2c2f35"/><text x="%d" y="%.1f" text-anchor="end" font-size="10" fill="#8e8e99">%s</text>`,
			plot.x, y(value), plot.w, plot.x-6, y(value)+3.5, html.EscapeString(format(p.FieldConfig.Defaults.Unit, value, nil)))
	}
	for at := math.Ceil(from/60) * 60; at <= to; at += 60 {
		fmt.Fprintf(svg, `<text x="%.1f" y="%d" text-anchor="middle" font-size="10" fill="#8e8e99">%s</text>`, x(at), plot.y+plot.h+14, time.Unix(int64(at), 0).UTC().Format("15:04"))
	}
	legendX, legendY := box.x+8, box.y+box.h-20
	for i, l := range lines {
		colour := palette[i%len(palette)]
		l.path(svg, colour, x, y)
		name := l.labels[""]
		wide := 22 + len(name)*6
		if legendX+wide > box.x+box.w && legendX > box.x+8 {
			legendX, legendY = box.x+8, legendY+13
		}
		if legendY <= box.y+box.h-4 { // there is room for two lines of legend
			fmt.Fprintf(svg, `<rect x="%d" y="%d" width="10" height="3" fill="%s"/><text x="%d" y="%d" font-size="10">%s</text>`,
				legendX, legendY-5, colour, legendX+14, legendY, html.EscapeString(name))
		}
		legendX += wide
	}
}

// path draws a series, with a gap where points are missing.
func (l *line) path(svg *bytes.Buffer, colour string, x, y func(float64) float64) {
	var d strings.Builder
	last := math.Inf(-1)
	for _, point := range l.points {
		command := "L"
		if point.at-last > 1.5*step.Seconds() {
			command = "M"
		}
		fmt.Fprintf(&d, "%s%.1f %.1f", command, x(point.at), y(point.value))
		last = point.at
	}
	fmt.Fprintf(svg, `<path d="%s" fill="none" stroke="%s" stroke-width="1.3"/>`, d.String(), colour)
}

// stack adds to each series the sum of those before it.
func stack(lines []line) {
	sums := make(map[float64]float64)
	for _, l := range lines {
		for i := range l.points {
			sums[l.points[i].at] += l.points[i].value
			l.points[i].value = sums[l.points[i].at]
		}
	}
}

// niceTick rounds v up to 1, 2 or 5 times a power of ten. Times and sizes are rounded in the unit in which format writes a
// value of that size.
func niceTick(unit string, v float64) float64 {
	if v <= 0 {
		return 1
	}
	for _, larger := range []struct {
		unit string
		size float64
	}{{"s", 86400}, {"s", 3600}, {"s", 60}, {"bytes", 1 << 30}, {"bytes", 1 << 20}} {
		if unit == larger.unit && v > larger.size/2 {
			return larger.size * niceTick("", v/larger.size)
		}
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, factor := range []float64{1, 2, 5} {
		if v <= factor*power {
			return factor * power
		}
	}
	return 10 * power
}

// placeholder matches a reference to a label in a legend format.
var placeholder = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// legend replaces the placeholders of a legend format, {{label}}, with the values of the labels.
func legend(pattern string, labels map[string]string) string {
	return placeholder.ReplaceAllStringFunc(pattern, func(name string) string { return labels[placeholder.FindStringSubmatch(name)[1]] })
}

// format formats a value with its unit as Grafana does. Without decimals it has three significant digits.
func format(unit string, v float64, decimals *int) string {
	number := func(v float64) string {
		if decimals != nil {
			return strconv.FormatFloat(v, 'f', *decimals, 64)
		}
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	scaled := func(steps []float64, names []string) string {
		for i := len(steps) - 1; i > 0; i-- {
			if math.Abs(v) >= steps[i] {
				return number(v/steps[i]) + " " + names[i]
			}
		}
		return number(v/steps[0]) + " " + names[0]
	}
	switch unit {
	case "s":
		if v == 0 {
			return "0 s"
		}
		return scaled([]float64{1e-6, 1e-3, 1, 60, 3600, 86400}, []string{"µs", "ms", "s", "mins", "hours", "days"})
	case "bytes":
		return scaled([]float64{1, 1 << 10, 1 << 20, 1 << 30}, []string{"B", "KiB", "MiB", "GiB"})
	case "percentunit":
		v *= 100
		return number(v) + "%"
	case "reqps":
		return number(v) + " req/s"
	}
	return number(v)
}
