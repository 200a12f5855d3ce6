package admin

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// The size of a page: what there is at the most, and where none is asked for.
const (
	mostPerPage  = 1000
	usualPerPage = 100
)

// errPageToken says that a page token was not made by this issuer for this list.
var errPageToken = invalid("page_token", "is not one that this list gave")

// page is what a list is asked for.
type page interface {
	GetPageSize() int32
	GetPageToken() string
}

// start gives after which id a page begins, and how many entries it may have. A token is checked before it is believed,
// so that nobody can make a list begin where they choose, or come to depend on what is in it.
func (c *Config) start(list string, p page) (after string, size int, err error) {
	switch size = int(p.GetPageSize()); {
	case size < 0:
		return "", 0, invalid("page_size", "is negative")
	case size == 0:
		size = usualPerPage
	}
	size = min(size, mostPerPage)
	if p.GetPageToken() == "" {
		return "", size, nil
	}
	const most = 1024 // room for the longest id, and then some
	data, err := base64.RawURLEncoding.DecodeString(p.GetPageToken())
	if err != nil || len(data) < sha256.Size || len(data) > most {
		return "", 0, errPageToken
	}
	after = string(data[sha256.Size:])
	if !hmac.Equal(data[:sha256.Size], c.pageMAC(list, after)) {
		return "", 0, errPageToken
	}
	return after, size, nil
}

// pageToken makes what gives the page after an id.
func (c *Config) pageToken(list, after string) string {
	return base64.RawURLEncoding.EncodeToString(append(c.pageMAC(list, after), after...))
}

func (c *Config) pageMAC(list, after string) []byte {
	mac := hmac.New(sha256.New, c.PageKey)
	mac.Write([]byte(list + "\x00" + after)) // no list has this byte in its name
	return mac.Sum(nil)
}
