package rest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"time"
)

// serveDocument answers GET and HEAD with a public document that may be cached (RFC 9111).
func (h *handler) serveDocument(w http.ResponseWriter, r *http.Request) {
	if isPreflight(r) {
		answerPreflight(w, "GET, HEAD", "*")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.refuseMethod(w, r)
		return
	}
	r.Header.Del("Range") // no client has a use for part of a document
	get := (&http.Request{Method: http.MethodGet, URL: r.URL, Body: http.NoBody}).WithContext(r.Context())
	answer := &buffer{header: http.Header{}, status: http.StatusOK}
	h.gateway.ServeHTTP(answer, get)
	maps.Copy(w.Header(), answer.header)
	if answer.status != http.StatusOK {
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes()) // an error means that the caller is gone
		return
	}
	sum := sha256.Sum256(answer.body.Bytes())
	w.Header().Set("ETag", `"`+base64.RawURLEncoding.EncodeToString(sum[:16])+`"`)
	w.Header().Del("Content-Length")
	http.ServeContent(wholeWriter{w}, r, "", time.Time{}, bytes.NewReader(answer.body.Bytes()))
}

// wholeWriter is a writer of whole documents. It removes Accept-Ranges, which [http.ServeContent] sets, because a Range is
// ignored.
type wholeWriter struct{ http.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (w wholeWriter) WriteHeader(status int) {
	w.Header().Del("Accept-Ranges")
	w.ResponseWriter.WriteHeader(status)
}

// buffer is an [http.ResponseWriter] that holds an answer until its ETag is computed.
type buffer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (b *buffer) Header() http.Header            { return b.header }
func (b *buffer) WriteHeader(status int)         { b.status = status }
func (b *buffer) Write(data []byte) (int, error) { return b.body.Write(data) }
