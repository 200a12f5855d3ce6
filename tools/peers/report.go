package main

import (
	"bytes"
	_ "embed" // the prose
	"fmt"
	"slices"

	"github.com/grantorhq/grantor/tools/figures"
)

//go:embed notes.md
var notes string

// quickWarning says what a quick run is for.
const quickWarning = "**This is a quick run, to try the program: its figures mean nothing.**\n\n"

// report returns the section of the report.
func report(machine string, results []*result, quick bool) []byte {
	var out bytes.Buffer
	out.WriteString("## Beside other servers\n\n")
	if quick {
		out.WriteString(quickWarning)
	}
	fmt.Fprintf(&out, "%s\n![tokens per second and processor time per token](%s)\n\n", notes, picture)
	speed := figures.NewTable("Server", "Settings", "Algorithm", "Tokens/s", "CPU per token, µs", "Median and 99 %, ms", "Memory, idle", "Memory, peak", "Start, s")
	work := figures.NewTable("Server", "Settings", "For each token")
	for _, r := range results {
		speed.Add(r.name, r.settings, r.algorithm, count(r.rates), count(r.cpu),
			fmt.Sprintf("%.1f, %.1f", figures.NewSpread(r.p50).Median, figures.NewSpread(r.p99).Median),
			figures.Megabytes(r.idle), figures.Megabytes(r.peak), fmt.Sprintf("%.2f", r.start))
		work.Add(r.name, r.settings, r.work)
	}
	speed.Write(&out)
	work.Write(&out)
	out.WriteString(machine + "\n")
	return out.Bytes()
}

// count formats the spread of counts.
func count(values []float64) string {
	s := figures.NewSpread(values)
	return fmt.Sprintf("%s (%s–%s)", whole(s.Median), whole(s.Min), whole(s.Max))
}

// whole formats a number without decimals.
func whole(v float64) string { return figures.Count(float64(int64(v + 0.5))) }

// draw draws the tokens per second of each server as a bar, the fastest first, with the processor time of a token beside it.
func draw(results []*result) []byte {
	const top, row, left, right = 76, 24, 250, 160
	svg := figures.Canvas(top+row*len(results)+8, "Tokens per second, on one machine with the client")
	figures.Legend(svg, 16, 48, figures.Blue, "Grantor")
	figures.Legend(svg, 96, 48, figures.Grey, "others, defaults")
	figures.Legend(svg, 216, 48, figures.Orange, "others, best settings")
	figures.Label(svg, figures.Width-16, 48, "end", figures.Faint, "processor time of a token", "")
	sorted := slices.SortedFunc(slices.Values(results), func(a, b *result) int {
		return int(figures.NewSpread(b.rates).Median - figures.NewSpread(a.rates).Median)
	})
	longest := figures.NewSpread(sorted[0].rates).Median
	for i, r := range sorted {
		y, rate := float64(top+row*i), figures.NewSpread(r.rates).Median
		long := max(rate/longest*(figures.Width-left-right), 1)
		figures.Label(svg, left-10, y+12, "end", figures.Ink, r.name+", "+r.algorithm, "")
		fmt.Fprintf(svg, `<rect x="%d" y="%.1f" width="%.1f" height="16" rx="2" fill="%s"/>`+"\n", left, y, long, r.colour())
		figures.Label(svg, left+long+6, y+12, "start", figures.Faint, whole(rate), "")
		figures.Label(svg, figures.Width-16, y+12, "end", figures.Ink, whole(figures.NewSpread(r.cpu).Median)+" µs", "")
	}
	return figures.Finish(svg)
}

// colour returns the colour of the bar.
func (r *result) colour() string {
	switch {
	case r.work == grantorWork:
		return figures.Blue
	case r.settings == "defaults":
		return figures.Grey
	}
	return figures.Orange
}
