package main

import (
	"bytes"
	"fmt"
	"math"

	"github.com/grantorhq/grantor/tools/figures"
)

// bar is a pair of bars: the calls per second of Grantor and of its floor, and the ratio of the two.
type bar struct {
	name                  string
	subject, floor, ratio float64
}

// drawBars draws pairs of bars to one scale. Each is labelled with its figure, because some are much smaller than others.
func drawBars(bars []bar) []byte {
	const top, row, left, right = 62, 46, 180, 150
	svg := figures.Canvas(top+row*len(bars)+12, "Calls per second, on one machine with the client")
	figures.Legend(svg, 16, 46, figures.Blue, "Grantor")
	figures.Legend(svg, 96, 46, figures.Grey, "the minimum that any server in its place must do")
	figures.Label(svg, figures.Width-16, 46, "end", figures.Faint, "ratio, median of the rounds", "")
	longest := 0.0
	for _, b := range bars {
		longest = max(longest, b.subject, b.floor)
	}
	for i, b := range bars {
		y := float64(top + row*i)
		figures.Label(svg, left-12, y+21, "end", figures.Ink, b.name, "")
		for j, one := range []struct {
			value  float64
			colour string
		}{{b.subject, figures.Blue}, {b.floor, figures.Grey}} {
			long := max(one.value/longest*(figures.Width-left-right), 1)
			at := y + float64(17*j)
			fmt.Fprintf(svg, `<rect x="%d" y="%.1f" width="%.1f" height="15" rx="2" fill="%s"/>`+"\n", left, at, long, one.colour)
			figures.Label(svg, left+long+6, at+12, "start", figures.Faint, figures.Count(one.value), "")
		}
		figures.Label(svg, figures.Width-16, y+21, "end", figures.Ink, fmt.Sprintf("%.2f", b.ratio), `font-size="15" font-weight="600"`)
	}
	return figures.Finish(svg)
}

// curve is the cost of verifying a token by the number of revocations.
type curve struct {
	name   string
	points []dot
}

// dot is a point of a curve: the time in ns, and its ratio to the time without revocations.
type dot struct{ revocations, ratio, took float64 }

// plot is the area of a curve: the y coordinates of zero and of maxRatio, in pixels, and the largest values of the axes.
type plot struct{ zero, top, maxRevocations, maxRatio float64 }

// The margins of a plot, in pixels.
const plotLeft, plotRight = 60, 70

func (p *plot) x(revocations float64) float64 {
	return plotLeft + math.Log10(revocations+1)/math.Log10(p.maxRevocations+1)*(figures.Width-plotLeft-plotRight)
}

func (p *plot) y(ratio float64) float64 { return p.zero - ratio/p.maxRatio*(p.zero-p.top) }

// drawCurves draws each curve in its own plot: the ratio of the time to that without revocations, by the logarithm of their
// number.
func drawCurves(curves []curve) []byte {
	const first, each, tall = 92, 190, 120
	svg := figures.Canvas(first+each*len(curves)-10, "Time to verify a token, relative to the time with no revocations")
	maxRevocations, maxRatio := 1.0, 1.5
	for _, c := range curves {
		for _, d := range c.points {
			maxRevocations, maxRatio = max(maxRevocations, d.revocations), max(maxRatio, d.ratio*1.2)
		}
	}
	for i, c := range curves {
		top := float64(first + each*i)
		p := &plot{zero: top + tall, top: top, maxRevocations: maxRevocations, maxRatio: maxRatio}
		colour := []string{figures.Blue, figures.Orange}[i%2]
		figures.Legend(svg, 16, top-26, colour, c.name)
		p.axes(svg)
		c.draw(svg, colour, p)
	}
	return figures.Finish(svg)
}

// axes draws the grid of a plot and the figures on its axes.
func (p *plot) axes(svg *bytes.Buffer) {
	for ratio := 0.0; ratio <= p.maxRatio; ratio += max(0.5, math.Ceil(p.maxRatio/4)) {
		fmt.Fprintf(svg, `<path d="M%d %.1fh%d" stroke="%s"/>`+"\n", plotLeft, p.y(ratio), figures.Width-plotLeft-plotRight, figures.Rule)
		figures.Label(svg, plotLeft-8, p.y(ratio)+4, "end", figures.Faint, fmt.Sprintf("%.1f", ratio), "")
	}
	figures.Label(svg, plotLeft, p.zero+18, "middle", figures.Faint, "0", "")
	for n := 10.0; n <= p.maxRevocations; n *= 10 {
		figures.Label(svg, p.x(n), p.zero+18, "middle", figures.Faint, figures.Count(n), "")
	}
	figures.Label(svg, figures.Width-16, p.zero+34, "end", figures.Faint, "revocations in effect", "")
}

// draw draws the curve with a mark at each point, the ratio above the mark and the time below.
func (c *curve) draw(svg *bytes.Buffer, colour string, p *plot) {
	command := "M"
	var path, marks bytes.Buffer
	for _, d := range c.points {
		x, y := p.x(d.revocations), p.y(d.ratio)
		fmt.Fprintf(&path, "%s%.1f %.1f", command, x, y)
		command = "L"
		fmt.Fprintf(&marks, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", x, y, colour)
		figures.Label(&marks, x, y-10, "middle", figures.Ink, fmt.Sprintf("%.2f", d.ratio), `font-weight="600"`)
		figures.Label(&marks, x, y+20, "middle", figures.Faint, figures.Count(math.Round(d.took))+" ns", `font-size="11"`)
	}
	fmt.Fprintf(svg, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
	svg.Write(marks.Bytes())
}
