package limit

import (
	"net/netip"
	"sync"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// Concurrency counts what each source has open at once, such as streams. It is safe for concurrent use by multiple
// goroutines, and its zero value is ready to use.
type Concurrency struct {
	mu   sync.Mutex
	open map[netip.Addr]int
}

// Enter reports whether source may open one more when it may have at most limit open; zero means no limit. After
// a true result, the caller calls [Concurrency.Leave] exactly once.
func (c *Concurrency) Enter(source netip.Addr, limit int) bool {
	source = remoteaddr.RateLimitKey(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	if limit > 0 && c.open[source] >= limit && source.IsValid() {
		return false
	}
	if c.open == nil {
		c.open = make(map[netip.Addr]int)
	}
	c.open[source]++
	return true
}

// Leave undoes one successful [Concurrency.Enter] of source.
func (c *Concurrency) Leave(source netip.Addr) {
	source = remoteaddr.RateLimitKey(source)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[source]--; c.open[source] <= 0 {
		delete(c.open, source)
	}
}
