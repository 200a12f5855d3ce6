package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"
)

// PageSize is how many entries of a list one call requests.
const PageSize = 500

// List prints a list page by page, so that a list of any length takes the memory of one page.
type List[T proto.Message] struct {
	Printer

	// Name is the key of the list in JSON and YAML.
	Name string
	// Header and Row are the columns for people.
	Header  []string
	Row     func(T) []string
	table   Table
	printed int
}

// Pages prints all pages. next returns the page that a token identifies and the token of the following page; the token of
// the first page is empty, as is the one after the last.
func (l *List[T]) Pages(cmd *cobra.Command, next func(token string) ([]T, string, error)) error {
	progress := NewProgress(cmd)
	defer progress.End()
	for token, more := "", true; more; more = token != "" {
		items, following, err := next(token)
		if err != nil {
			return err
		}
		if err := l.Page(items, following == ""); err != nil {
			return err
		}
		token = following
		progress.Showf("%d %s", l.printed, l.Name)
	}
	return nil
}

// Page prints one page. last reports whether it is the last one.
func (l *List[T]) Page(items []T, last bool) error {
	var page bytes.Buffer
	var err error
	switch l.Form {
	case "json":
		err = l.pageJSON(&page, items, last)
	case "yaml":
		err = l.pageYAML(&page, items, last)
	default:
		err = l.pageText(&page, items, last)
	}
	if err != nil {
		return err
	}
	l.printed += len(items)
	_, err = page.WriteTo(l.Out)
	return err
}

func (l *List[T]) pageText(page io.Writer, items []T, last bool) error {
	var lines [][]string
	if l.printed == 0 && (last || len(items) > 0) {
		lines = append(lines, l.Header)
	}
	for _, item := range items {
		lines = append(lines, l.Row(item))
	}
	return l.table.Write(page, lines...)
}

func (l *List[T]) pageJSON(page *bytes.Buffer, items []T, last bool) error {
	for i, item := range items {
		separator := ",\n    "
		if l.printed+i == 0 {
			separator = "{\n  \"" + l.Name + "\": [\n    "
		}
		document, err := toJSON(item, "    ")
		if err != nil {
			return err
		}
		page.WriteString(separator)
		page.Write(document)
	}
	switch {
	case last && l.printed+len(items) == 0:
		page.WriteString("{\n  \"" + l.Name + "\": []\n}\n")
	case last:
		page.WriteString("\n  ]\n}\n")
	}
	return nil
}

func (l *List[T]) pageYAML(page *bytes.Buffer, items []T, last bool) error {
	switch {
	case l.printed == 0 && len(items) > 0:
		page.WriteString(l.Name + ":\n")
	case l.printed == 0 && last:
		page.WriteString(l.Name + ": []\n")
	}
	for _, item := range items {
		document, err := toYAML(item, true)
		if err != nil {
			return err
		}
		page.Write(document)
	}
	return nil
}

// Progress shows on standard error how far a command has come. It shows nothing unless standard error is a terminal and
// standard output is not: only then would a person wait in front of an empty screen.
type Progress struct{ out io.Writer }

// NewProgress returns the progress display of cmd.
func NewProgress(cmd *cobra.Command) Progress {
	if onTerminal(cmd.ErrOrStderr()) && !onTerminal(cmd.OutOrStdout()) {
		return Progress{cmd.ErrOrStderr()}
	}
	return Progress{io.Discard}
}

func onTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// clearLine makes a terminal erase the current line.
const clearLine = "\r\x1b[K"

// Showf replaces what is shown.
func (p Progress) Showf(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, clearLine+format, args...)
}

// End erases what is shown.
func (p Progress) End() { _, _ = io.WriteString(p.out, clearLine) }
