package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// The maximum number of entries on a page, and the number if the request names none.
const (
	maxPageSize     = 1000
	defaultPageSize = 100
)

// errPageToken refuses a page token that this issuer did not return for this list.
var errPageToken = invalid("page_token", "is not one that this list gave")

// page is a request for a page of a list.
type page interface {
	GetPageSize() int32
	GetPageToken() string
}

// start returns the id that precedes a page, and the maximum number of its entries. It authenticates the page token, so
// that a caller can neither choose where a list begins nor come to depend on the contents of tokens.
func (c *Config) start(list string, p page) (after string, size int, err error) {
	switch size = int(p.GetPageSize()); {
	case size < 0:
		return "", 0, invalid("page_size", "is negative")
	case size == 0:
		size = defaultPageSize
	}
	size = min(size, maxPageSize)
	if p.GetPageToken() == "" {
		return "", size, nil
	}
	const maxToken = 1024 // bytes; longer than the longest id needs
	data, err := base64.RawURLEncoding.DecodeString(p.GetPageToken())
	if err != nil || len(data) < sha256.Size || len(data) > maxToken {
		return "", 0, errPageToken
	}
	after = string(data[sha256.Size:])
	if !hmac.Equal(data[:sha256.Size], c.pageMAC(list, after)) {
		return "", 0, errPageToken
	}
	return after, size, nil
}

// pageToken returns the token of the page that follows the id after.
func (c *Config) pageToken(list, after string) string {
	return base64.RawURLEncoding.EncodeToString(append(c.pageMAC(list, after), after...))
}

// pageMAC authenticates an id as the last one of a page of list.
func (c *Config) pageMAC(list, after string) []byte {
	mac := hmac.New(sha256.New, c.PageKey)
	mac.Write([]byte(list + "\x00" + after)) // no name of a list contains this byte
	return mac.Sum(nil)
}
