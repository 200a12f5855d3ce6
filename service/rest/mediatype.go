package rest

import (
	"errors"
	"mime"
)

// parseMediaType parses a media type and its parameters (RFC 9110 §8.3.1) like [mime.ParseMediaType], but refuses a value
// with other characters than visible ASCII, blanks and tabs. That function trims the white space of Unicode and ignores the
// case of its letters, such as "\u0130", whereas a proxy that decides by the type does not.
func parseMediaType(value string) (mediaType string, parameters map[string]string, err error) {
	for i := range len(value) {
		if c := value[i]; (c < ' ' || c > '~') && c != '\t' {
			return "", nil, errors.New("the media type has characters other than visible ASCII, blanks and tabs")
		}
	}
	return mime.ParseMediaType(value)
}
