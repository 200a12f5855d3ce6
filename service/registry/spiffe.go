package registry

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// belowSPIFFEID is the end of a SPIFFE ID that stands for all IDs below it.
const belowSPIFFEID = "/*"

// HasSPIFFEID reports whether a SPIFFE ID authenticates the client, by its own field or by a rule.
func (c *Client) HasSPIFFEID() bool {
	for i := range c.Federation {
		if c.Federation[i].SPIFFEID.String() != "" {
			return true
		}
	}
	return c.SPIFFEID != ""
}

// MatchesSPIFFEID reports whether the client's field for a SPIFFE ID is for the given one, which is valid. The field may end in
// /* and is then for each ID that has at least one more segment.
func (c *Client) MatchesSPIFFEID(id string) bool {
	if above, ok := strings.CutSuffix(c.SPIFFEID, belowSPIFFEID); ok {
		return strings.HasPrefix(id, above+"/")
	}
	return id != "" && id == c.SPIFFEID
}

func checkSPIFFEID(c, _ *Client, _ *Resources) string {
	if c.SPIFFEID == "" {
		return ""
	}
	text := strings.TrimSuffix(c.SPIFFEID, belowSPIFFEID)
	id, err := spiffeid.FromString(text)
	if err != nil || len(text) > maxSPIFFEID || id.Path() == "" && text == c.SPIFFEID {
		return "is not a SPIFFE ID of at most 512 bytes such as spiffe://prod.example.com/shop/orders, or one with /* in place of its end"
	}
	return ""
}

// maxSPIFFEID is the maximum size of a SPIFFE ID of a client, in bytes.
const maxSPIFFEID = 512
