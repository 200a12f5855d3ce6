package figures

import (
	"bytes"
	"fmt"
	"html"
)

// Width is the width of a picture, in pixels. They have a white background, so they look the same on a light and a dark
// page.
const Width = 720

// The colours of the pictures.
const (
	Ink    = "#1f2328"
	Faint  = "#59636e"
	Rule   = "#d1d9e0"
	Blue   = "#0969da"
	Grey   = "#8c959f"
	Orange = "#bc4c00"
)

// Canvas starts a picture: it writes the background and the title.
func Canvas(height int, title string) *bytes.Buffer {
	var svg bytes.Buffer
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="Helvetica,Arial,sans-serif" font-size="12" fill="%s">`+"\n",
		Width, height, Width, height, Ink)
	fmt.Fprintf(&svg, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="6" fill="#ffffff" stroke="%s"/>`+"\n", Width-1, height-1, Rule)
	Label(&svg, 16, 26, "start", Ink, title, `font-size="15" font-weight="600"`)
	return &svg
}

// Finish ends a picture and returns it.
func Finish(svg *bytes.Buffer) []byte {
	svg.WriteString("</svg>\n")
	return svg.Bytes()
}

// Label writes a text. anchor is start, middle or end; more is further attributes.
func Label(svg *bytes.Buffer, x, y float64, anchor, colour, text, more string) {
	fmt.Fprintf(svg, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s" %s>%s</text>`+"\n", x, y, anchor, colour, more, html.EscapeString(text))
}

// Legend writes the meaning of a colour.
func Legend(svg *bytes.Buffer, x, y float64, colour, text string) {
	fmt.Fprintf(svg, `<rect x="%.1f" y="%.1f" width="10" height="10" fill="%s"/>`+"\n", x, y-9, colour)
	Label(svg, x+15, y, "start", Faint, text, "")
}
