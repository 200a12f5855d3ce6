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

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Printer prints the result of a command.
type Printer struct {
	Out io.Writer
	// Form is text, json or yaml.
	Form string
}

// Print prints message as JSON or YAML, or calls text to print it for people.
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

// Printf prints message as JSON or YAML, or the formatted line for people.
func (p *Printer) Printf(message proto.Message, format string, args ...any) error {
	return p.Print(message, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, format+"\n", args...)
		return err
	})
}

// toJSON returns a message as indented JSON with the field names of the .proto files. Each line but the first begins with
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

// EscapeJSON escapes the unprintable characters of a JSON document. It writes a character beyond U+FFFF as a surrogate pair.
func EscapeJSON(document []byte) []byte {
	return escape(document, func(r rune) string {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	})
}

// toYAML returns a message as YAML with the values of its JSON, or as one item of a YAML list.
func toYAML(message proto.Message, item bool) ([]byte, error) {
	document, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	// Unprintable characters must reach the parser escaped: it takes some of them for the end of a line.
	escaped := escape(document, func(r rune) string { return fmt.Sprintf(`\U%08x`, r) })
	var node yaml.Node
	if err := yaml.Load(escaped, &node); err != nil {
		return nil, err
	}
	useBlockStyle(&node)
	var value any = &node
	if item {
		value = node.Content
	}
	return yaml.Dump(value, yaml.WithV3Defaults(), yaml.WithIndent(2), yaml.WithCompactSeqIndent(), yaml.WithLineWidth(-1),
		yaml.WithUnicode(len(escaped) == len(document)))
}

// useBlockStyle removes the braces and quotes that JSON has and YAML does not need.
func useBlockStyle(node *yaml.Node) {
	node.Style = 0
	for _, child := range node.Content {
		useBlockStyle(child)
	}
}

// escape replaces unprintable characters, which could act on a terminal, with escape sequences. In JSON they occur only
// inside strings. encodeAstral encodes the characters beyond U+FFFF, which JSON and YAML write differently.
func escape(document []byte, encodeAstral func(rune) string) []byte {
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
			escaped.WriteString(encodeAstral(r))
		default:
			_, _ = fmt.Fprintf(&escaped, `\u%04x`, r)
		}
	}
	return escaped.Bytes()
}

// Printable replaces each character that could act on a terminal with a question mark. Tokens and responses can come from
// an attacker.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// FormatTime formats a timestamp as RFC 3339, or returns absent if there is none.
func FormatTime(t *timestamppb.Timestamp, absent string) string {
	if t == nil {
		return absent
	}
	return t.AsTime().UTC().Format(time.RFC3339)
}
