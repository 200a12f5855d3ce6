package attach_test

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grantorhq/grantor/interceptors/attach"
	"github.com/grantorhq/grantor/service/must"
)

// TestStreamOutlivesItsCertificate checks that the renewals of a stream are with tokens for the certificate that its connection
// presented, and that they go on when the source has another certificate, and a token for that which is renewed much later.
func TestStreamOutlivesItsCertificate(t *testing.T) {
	var first atomic.Pointer[tls.Certificate]
	b := newBothBound(t, func(c *x509.Certificate) time.Duration {
		if own := first.Load(); own != nil && !c.Equal(own.Leaf) {
			return time.Hour
		}
		return 0
	})
	attach.RenewEarly(b.source)
	first.Store(b.own.current.Load())
	client := b.dial(t)
	done := make(chan error, 1)
	go func() {
		_, err := exchange(t, client, 9*time.Second)
		done <- err
	}()
	<-time.After(200 * time.Millisecond)
	b.own.rotate()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		must.Get(b.source.Token())
	}
	if err := <-done; err != nil {
		t.Errorf("got %v, want a stream of 9 s with tokens of 7 s", err)
	}
}
