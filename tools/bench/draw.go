package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// width is the width of both pictures, in pixels. They have a white background, so they look the same on a light and a dark
// page.
const width = 720

// The colours of the pictures.
const (
	ink    = "#1f2328"
	faint  = "#59636e"
	rule   = "#d1d9e0"
	blue   = "#0969da"
	grey   = "#8c959f"
	orange = "#bc4c00"
)

// canvas starts a picture: it writes the background and the title.
func canvas(height int, title string) *bytes.Buffer {
	var svg bytes.Buffer
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="Helvetica,Arial,sans-serif" font-size="12" fill="%s">`+"\n",
		width, height, width, height, ink)
	fmt.Fprintf(&svg, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="6" fill="#ffffff" stroke="%s"/>`+"\n", width-1, height-1, rule)
	label(&svg, 16, 26, "start", ink, title, `font-size="15" font-weight="600"`)
	return &svg
}

// finish ends a picture and returns it.
func finish(svg *bytes.Buffer) []byte {
	svg.WriteString("</svg>\n")
	return svg.Bytes()
}

// label writes a text. anchor is start, middle or end; more is further attributes.
func label(svg *bytes.Buffer, x, y float64, anchor, colour, text, more string) {
	fmt.Fprintf(svg, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" %s>%s</text>`+"\n", x, y, anchor, colour, more, html.EscapeString(text))
}

// legend writes the meaning of a colour.
func legend(svg *bytes.Buffer, x, y float64, colour, text string) {
	fmt.Fprintf(svg, `<rect x="%.1f" y="%.1f" width="10" height="10" fill="%s"/>`+"\n", x, y-9, colour)
	label(svg, x+15, y, "start", faint, text, "")
}

// bar is a pair of bars: the calls per second of Grantor and of its floor, and the ratio of the two.
type bar struct {
	name                  string
	subject, floor, ratio float64
}

// drawBars draws pairs of bars to one scale. Each is labelled with its figure, because some are much smaller than others.
func drawBars(bars []bar) []byte {
	const top, row, left, right = 62, 46, 180, 150
	svg := canvas(top+row*len(bars)+12, "Calls per second, on one machine with the client")
	legend(svg, 16, 46, blue, "Grantor")
	legend(svg, 96, 46, grey, "the minimum that any server in its place must do")
	label(svg, width-16, 46, "end", faint, "ratio, median of the rounds", "")
	longest := 0.0
	for _, b := range bars {
		longest = max(longest, b.subject, b.floor)
	}
	for i, b := range bars {
		y := float64(top + row*i)
		label(svg, left-12, y+21, "end", ink, b.name, "")
		for j, one := range []struct {
			value  float64
			colour string
		}{{b.subject, blue}, {b.floor, grey}} {
			long := max(one.value/longest*(width-left-right), 1)
			at := y + float64(17*j)
			fmt.Fprintf(svg, `<rect x="%d" y="%.1f" width="%.1f" height="15" rx="2" fill="%s"/>`+"\n", left, at, long, one.colour)
			label(svg, left+long+6, at+12, "start", faint, formatCount(one.value), "")
		}
		label(svg, width-16, y+21, "end", ink, fmt.Sprintf("%.2f", b.ratio), `font-size="15" font-weight="600"`)
	}
	return finish(svg)
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
	return plotLeft + math.Log10(revocations+1)/math.Log10(p.maxRevocations+1)*(width-plotLeft-plotRight)
}

func (p *plot) y(ratio float64) float64 { return p.zero - ratio/p.maxRatio*(p.zero-p.top) }

// drawCurves draws each curve in its own plot: the ratio of the time to that without revocations, by the logarithm of their
// number.
func drawCurves(curves []curve) []byte {
	const first, each, tall = 92, 190, 120
	svg := canvas(first+each*len(curves)-10, "Time to verify a token, relative to the time with no revocations")
	maxRevocations, maxRatio := 1.0, 1.5
	for _, c := range curves {
		for _, d := range c.points {
			maxRevocations, maxRatio = max(maxRevocations, d.revocations), max(maxRatio, d.ratio*1.2)
		}
	}
	for i, c := range curves {
		top := float64(first + each*i)
		p := &plot{zero: top + tall, top: top, maxRevocations: maxRevocations, maxRatio: maxRatio}
		colour := []string{blue, orange}[i%2]
		legend(svg, 16, top-26, colour, c.name)
		p.axes(svg)
		c.draw(svg, colour, p)
	}
	return finish(svg)
}

// axes draws the grid of a plot and the figures on its axes.
func (p *plot) axes(svg *bytes.Buffer) {
	for ratio := 0.0; ratio <= p.maxRatio; ratio += max(0.5, math.Ceil(p.maxRatio/4)) {
		fmt.Fprintf(svg, `<path d="M%d %.1fh%d" stroke="%s"/>`+"\n", plotLeft, p.y(ratio), width-plotLeft-plotRight, rule)
		label(svg, plotLeft-8, p.y(ratio)+4, "end", faint, fmt.Sprintf("%.1f", ratio), "")
	}
	label(svg, plotLeft, p.zero+18, "middle", faint, "0", "")
	for n := 10.0; n <= p.maxRevocations; n *= 10 {
		label(svg, p.x(n), p.zero+18, "middle", faint, formatCount(n), "")
	}
	label(svg, width-16, p.zero+34, "end", faint, "revocations in effect", "")
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
		label(&marks, x, y-10, "middle", ink, fmt.Sprintf("%.2f", d.ratio), `font-weight="600"`)
		label(&marks, x, y+20, "middle", faint, formatCount(math.Round(d.took))+" ns", `font-size="11"`)
	}
	fmt.Fprintf(svg, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path.String(), colour)
	svg.Write(marks.Bytes())
}
