package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/proto"
)

// pageSize is how many entries of a list are asked for at once.
const pageSize = 500

// listing prints a list page by page, so that one of any length takes the memory of one page.
type listing[T proto.Message] struct {
	printer

	// name is that of the list in JSON and YAML.
	name string
	// header and row are for people.
	header  []string
	row     func(T) []string
	table   columns
	printed int
}

// pages prints all pages. next gives the page of a token, and the token of the page after it.
func (l *listing[T]) pages(cmd *cobra.Command, next func(token string) ([]T, string, error)) error {
	progress := newProgress(cmd)
	defer progress.end()
	for token, more := "", true; more; more = token != "" {
		items, following, err := next(token)
		if err != nil {
			return err
		}
		if err := l.page(items, following == ""); err != nil {
			return err
		}
		token = following
		progress.showf("%d %s", l.printed, l.name)
	}
	return nil
}

// page prints one page; last says that there is none after it.
func (l *listing[T]) page(items []T, last bool) error {
	var page bytes.Buffer
	var err error
	switch l.form {
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
	_, err = page.WriteTo(l.out)
	return err
}

func (l *listing[T]) pageText(page io.Writer, items []T, last bool) error {
	var lines [][]string
	if l.printed == 0 && (last || len(items) > 0) {
		lines = append(lines, l.header)
	}
	for _, item := range items {
		lines = append(lines, l.row(item))
	}
	return l.table.write(page, lines...)
}

func (l *listing[T]) pageJSON(page *bytes.Buffer, items []T, last bool) error {
	for i, item := range items {
		separator := ",\n    "
		if l.printed+i == 0 {
			separator = "{\n  \"" + l.name + "\": [\n    "
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
		page.WriteString("{\n  \"" + l.name + "\": []\n}\n")
	case last:
		page.WriteString("\n  ]\n}\n")
	}
	return nil
}

func (l *listing[T]) pageYAML(page *bytes.Buffer, items []T, last bool) error {
	switch {
	case l.printed == 0 && len(items) > 0:
		page.WriteString(l.name + ":\n")
	case l.printed == 0 && last:
		page.WriteString(l.name + ": []\n")
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

// progress tells on standard error how far a command has come, where a person would wait before an empty screen: where
// standard error is a terminal and standard output is not.
type progress struct{ out io.Writer }

func newProgress(cmd *cobra.Command) progress {
	if onTerminal(cmd.ErrOrStderr()) && !onTerminal(cmd.OutOrStdout()) {
		return progress{cmd.ErrOrStderr()}
	}
	return progress{io.Discard}
}

func onTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// clearLine has a terminal forget the line that it is on.
const clearLine = "\r\x1b[K"

func (p progress) showf(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, clearLine+format, args...)
}

func (p progress) end() { _, _ = io.WriteString(p.out, clearLine) }
