package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Printer prints what a command got.
type Printer struct {
	Out io.Writer
	// form is text, json or yaml.
	Form string
}

// Print prints one message; text prints it for people.
func (p *Printer) Print(message proto.Message, text func(io.Writer) error) error {
	var document []byte
	var err error
	switch p.Form {
	case "json":
		document, err = toJSON(message, "")
		document = append(document, '\n')
	case "yaml":
		document, err = toYAML(message, false)
	default:
		return text(p.Out)
	}
	if err != nil {
		return err
	}
	_, err = p.Out.Write(document)
	return err
}

// Printf prints a message, for people as a sentence.
func (p *Printer) Printf(message proto.Message, format string, args ...any) error {
	return p.Print(message, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, format+"\n", args...)
		return err
	})
}

// toJSON writes a message as indented JSON with the field names of the protos. Each line but the first begins with the
// prefix.
func toJSON(message proto.Message, prefix string) ([]byte, error) {
	document, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, document, prefix, "  "); err != nil {
		return nil, err
	}
	return EscapeJSON(indented.Bytes()), nil
}

// EscapeJSON is escape for JSON, which writes a character beyond \uffff as two.
func EscapeJSON(document []byte) []byte {
	return escape(document, func(r rune) string {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	})
}

// toYAML writes a message as YAML that has the values of its JSON; as one item of a list, if that is wanted.
func toYAML(message proto.Message, item bool) ([]byte, error) {
	document, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	// What is not printable must reach the parser as an escape: it would take some of it for the end of a line.
	escaped := escape(document, func(r rune) string { return fmt.Sprintf(`\U%08x`, r) })
	var node yaml.Node
	if err := yaml.Load(escaped, &node); err != nil {
		return nil, err
	}
	block(&node)
	var value any = &node
	if item {
		value = node.Content
	}
	return yaml.Dump(value, yaml.WithV3Defaults(), yaml.WithIndent(2), yaml.WithCompactSeqIndent(), yaml.WithLineWidth(-1),
		yaml.WithUnicode(len(escaped) == len(document)))
}

// block takes away the braces and quotes that JSON has and YAML can do without.
func block(node *yaml.Node) {
	node.Style = 0
	for _, below := range node.Content {
		block(below)
	}
}

// escape writes what is not printable as an escape: it could act on a terminal. In JSON it stands in strings alone. far
// writes the characters beyond \uffff, which JSON and YAML do differently.
func escape(document []byte, far func(rune) string) []byte {
	unsafe := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
	if bytes.IndexFunc(document, unsafe) < 0 {
		return document
	}
	var escaped bytes.Buffer
	for _, r := range string(document) {
		switch {
		case !unsafe(r):
			escaped.WriteRune(r)
		case r > 0xffff:
			escaped.WriteString(far(r))
		default:
			_, _ = fmt.Fprintf(&escaped, `\u%04x`, r)
		}
	}
	return escaped.Bytes()
}

// WriteTable writes lines for people, in columns.
func WriteTable(out io.Writer, lines ...[]string) error { return new(Table).Write(out, lines...) }

// Table writes a table piece by piece. A column never gets narrower, so that the pieces are one table to the eye.
type Table struct{ widths []int }

func (c *Table) Write(out io.Writer, lines ...[]string) error {
	for _, line := range lines {
		for i, cell := range line {
			if i == len(c.widths) {
				c.widths = append(c.widths, 0)
			}
			c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, line := range lines {
		var row strings.Builder
		for i, cell := range line {
			if cell == "" {
				cell = "-"
			}
			_, _ = fmt.Fprintf(&row, "%-*s  ", c.widths[i], Printable(cell))
		}
		text.WriteString(strings.TrimRight(row.String(), " ") + "\n")
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// FormatTime writes a point in time; absent is the word for none.
func FormatTime(t *timestamppb.Timestamp, absent string) string {
	if t == nil {
		return absent
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}

// JoinOr writes a list; absent is the word for an empty one.
func JoinOr(list []string, absent string) string {
	if len(list) == 0 {
		return absent
	}
	return strings.Join(list, " ")
}

// Printable takes out what could act on a terminal: a token, like an answer, may come from anybody.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
