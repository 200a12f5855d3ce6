package rest

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/service/oauth"
)

// htmlType is the media type of the root for browsers.
const htmlType = "text/html"

// frontPages returns the page at the root of the issuer's URL, in HTML and in JSON, keyed by media type. It is for people: a
// program reads the metadata.
func frontPages(issuer string) map[string][]byte {
	const title = "Grantor, an OAuth 2.0 authorization server"
	const text = "It issues access tokens to services (RFC 6749 §4.4). There is nothing to sign in to."
	page := fmt.Sprintf(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>%[1]s</title></head>
<body>
<h1>%[1]s</h1>
<p>%[2]s</p>
<ul>
<li>issuer: <code>%[3]s</code></li>
<li>token endpoint, for POST: <code>%[3]s%[4]s</code></li>
<li><a href="%[3]s%[5]s">metadata</a> (RFC 8414)</li>
<li><a href="%[3]s%[6]s">public keys</a> (RFC 7517)</li>
</ul>
</body>
</html>
`, title, text, html.EscapeString(issuer), tokenPath, oauth.WellKnownServer, keySetPath)
	data, err := json.MarshalIndent(struct {
		Title    string `json:"title"`
		Text     string `json:"description"`
		Issuer   string `json:"issuer"`
		Token    string `json:"token_endpoint"`
		Metadata string `json:"metadata"`
		Keys     string `json:"jwks_uri"`
	}{title, text, issuer, issuer + tokenPath, issuer + oauth.WellKnownServer, issuer + keySetPath}, "", "  ")
	if err != nil {
		panic(err) // strings always marshal
	}
	return map[string][]byte{htmlType: []byte(page), jsonType: append(data, '\n')}
}

// serveFront answers GET and HEAD at the root.
func (h *handler) serveFront(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.refuseMethod(w, r)
		return
	}
	mediaType := jsonType
	if accepts(r.Header, htmlType) > accepts(r.Header, jsonType) {
		mediaType = htmlType
	}
	header := w.Header()
	header.Set("Content-Type", mediaType+";charset=UTF-8")
	header.Set("Content-Length", strconv.Itoa(len(h.front[mediaType])))
	header.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Vary", "Accept")
	noStore(header)
	if r.Method == http.MethodGet {
		_, _ = w.Write(h.front[mediaType]) // an error means that the caller is gone
	}
}

// accepts returns the weight of a media type among those that a request names (RFC 9110 §12.5.1), or zero if it names it
// only by a wildcard, as programs do.
func accepts(header http.Header, mediaType string) float64 {
	for _, line := range header["Accept"] {
		for one := range strings.SplitSeq(line, ",") {
			name, parameters, err := parseMediaType(one)
			if err != nil || name != mediaType {
				continue
			}
			weight, weighted := parameters["q"]
			if !weighted {
				return 1
			}
			q, err := strconv.ParseFloat(weight, 64)
			if err == nil && q >= 0 && q <= 1 { // also refuses NaN
				return q
			}
		}
	}
	return 0
}
