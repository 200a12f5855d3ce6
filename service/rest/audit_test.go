package rest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestUnreadAudited sends requests that cannot be read. Their refusals are audited although no call was made, and no
// part of a request is in the log.
func TestUnreadAudited(t *testing.T) {
	r := newReplica(t, time.Hour)
	for path, event := range map[string]string{
		"/connect/token": "token.refused", "/connect/introspect": "token.introspect_refused", "/connect/revoke": "token.revoke_refused",
	} {
		wantRefusal(t, r.post(path, "client_secret=hidden&client_secret=hidden", http.Header{}), http.StatusBadRequest, "invalid_request")
		want := "event=" + event + ` client_id="" auth_method="" identity="" peer=192.0.2.1:1234 error=invalid_request reason=invalid_request cause="client_secret is sent more than once."`
		if log := r.log.String(); strings.Count(log, want) != 1 {
			t.Errorf("%s: got %s, want %s", path, log, want)
		}
	}
	recorder := httptest.NewRecorder()
	r.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/v1/clients?hidden=hidden", nil))
	want := `event=admin.refused by="" peer=192.0.2.1:1234 method="" reason=invalid_request`
	if log := r.log.String(); recorder.Code != http.StatusBadRequest || !strings.Contains(log, want) || strings.Contains(log, "hidden") {
		t.Errorf("got %d and %s, want 400 and %s", recorder.Code, log, want)
	}
}
