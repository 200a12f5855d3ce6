package figures

import (
	"bytes"
	"fmt"
)

// marks returns the lines around a section that a program writes into a document of another.
func marks(name string) (begin, end []byte) {
	return fmt.Appendf(nil, "<!-- begin %s: written by `make %[1]s` -->\n", name), fmt.Appendf(nil, "<!-- end %s -->\n", name)
}

// Section returns the named section of a document with its marks, or nil if the document has none.
func Section(document []byte, name string) []byte {
	begin, end := marks(name)
	from := bytes.Index(document, begin)
	if from < 0 {
		return nil
	}
	length := bytes.Index(document[from:], end)
	if length < 0 {
		return nil
	}
	return document[from : from+length+len(end)]
}

// ReplaceSection returns the document with another content of the named section, which is added at the end if there is none.
func ReplaceSection(document []byte, name string, content []byte) []byte {
	begin, end := marks(name)
	section := bytes.Join([][]byte{begin, bytes.TrimSpace(content), []byte("\n"), end}, nil)
	if old := Section(document, name); old != nil {
		return bytes.Replace(document, old, section, 1)
	}
	return bytes.Join([][]byte{bytes.TrimRight(document, "\n"), section}, []byte("\n\n"))
}
