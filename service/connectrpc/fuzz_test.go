package connectrpc_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/connectrpc"
	"github.com/grantorhq/grantor/service/oauth"
)

// FuzzRequest sends requests to a handler whose service repeats what it has decoded. An answer is one of success only if the
// message was decoded, and a refusal was recorded otherwise.
func FuzzRequest(f *testing.F) {
	for _, mediaType := range []string{asJSON, asProto, asWeb, asWebJSON} {
		body := encoded(mediaType)
		f.Add(mediaType, "Content-Encoding", "", []byte(body))
		f.Add(mediaType, "Content-Encoding", "gzip", []byte(compress(body)))
		f.Add(mediaType, "Grpc-Encoding", "gzip", []byte(envelope(1, compress(body))))
		f.Add(mediaType, "Grpc-Timeout", "1S", []byte(body))
		f.Add(mediaType, "Connect-Timeout-Ms", "1000", []byte(body))
		f.Add(mediaType, "Connect-Protocol-Version", "1", []byte(body[:len(body)-1]))
	}
	f.Add(asWeb, "X", "", []byte("\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, mediaType, name, value string, body []byte) {
		decoded, unread := false, 0
		handler := connectrpc.New(connectrpc.Config{
			Call: func(_ context.Context, _ string, decode func(any) error) (any, error) {
				m := &grantorv1.IssueTokenRequest{}
				if err := decode(m); err != nil {
					return nil, err
				}
				decoded = true
				return &grantorv1.IssueTokenResponse{Scope: m.GetScope()}, nil
			},
			Unread: func(context.Context, string, *oauth.Error) { unread++ },
			Realm:  "https://issuer.test",
		})
		r := httptest.NewRequest(http.MethodPost, issueToken, strings.NewReader(string(body)))
		r.Header.Set("Content-Type", mediaType)
		r.Header[http.CanonicalHeaderKey(name)] = append(r.Header[http.CanonicalHeaderKey(name)], value)
		if !connectrpc.Speaks(r) {
			t.Skip()
		}
		if size := handler.MaxSize(r); size < min(len(body), maxMessage) || size > 2*(maxMessage+5) {
			t.Errorf("%d bytes are reserved for a body of %d", size, len(body))
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		succeeded := w.Code == http.StatusOK && (w.Header().Get("Grpc-Status") == "" || w.Header().Get("Grpc-Status") == "0")
		if succeeded != decoded && unread == 0 && !strings.Contains(w.Body.String()+w.Header().Get("Grpc-Message"), "The call ended before its answer.") {
			t.Errorf("got %d %v %q, decoded: %t, recorded: %d", w.Code, w.Header(), w.Body, decoded, unread)
		}
		if unread > 1 || decoded && unread > 0 {
			t.Errorf("%d refusals are recorded, decoded: %t", unread, decoded)
		}
	})
}
