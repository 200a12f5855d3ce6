package limit

import (
	"net/netip"
	"sync"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// The bounds of an [Intake], in bytes, and the cost of a request in it.
const (
	// MaxIntake is the maximum that the requests of all sources hold at once, MaxIntakePerSource that of one source.
	MaxIntake          = 128 << 20
	MaxIntakePerSource = 48 << 20
	// RequestCost is what a request costs besides its body: its goroutine, stack, headers and buffers.
	RequestCost = 16 << 10
	// Above crowded, or crowdedPerSource of one source, requests have less time to arrive.
	crowded          = MaxIntake / 2
	crowdedPerSource = MaxIntakePerSource / 2
)

// Intake is the memory budget of the requests under way, shared by both wires. A request enters it before its body is read,
// with the maximum size of the body. The memory that unread and unanswered requests hold is therefore bounded as a whole,
// independently of the number of connections, streams and sources. An Intake is safe for concurrent use by multiple
// goroutines, and its zero value is ready to use.
type Intake struct {
	mu      sync.Mutex
	bytes   int
	sources map[netip.Addr]int
}

// Enter adds a request of the source with a body of at most body bytes. ok reports whether it fits the budget, and busy
// whether it has less time to arrive, because many are under way. If ok is true, the caller calls [Intake.Leave] exactly
// once with the same arguments.
func (i *Intake) Enter(source netip.Addr, body int) (ok, busy bool) {
	source = remoteaddr.RateLimitKey(source)
	n := body + RequestCost
	i.mu.Lock()
	defer i.mu.Unlock()
	held := i.sources[source]
	if i.bytes+n > MaxIntake || (source.IsValid() && held+n > MaxIntakePerSource) {
		return false, true
	}
	if i.sources == nil {
		i.sources = make(map[netip.Addr]int)
	}
	i.bytes += n
	i.sources[source] = held + n
	return true, i.bytes > crowded || held+n > crowdedPerSource
}

// Leave undoes one successful [Intake.Enter].
func (i *Intake) Leave(source netip.Addr, body int) {
	source = remoteaddr.RateLimitKey(source)
	n := body + RequestCost
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bytes -= n
	if i.sources[source] -= n; i.sources[source] <= 0 {
		delete(i.sources, source)
	}
}

// Bytes returns the maximum size of the requests under way, in bytes.
func (i *Intake) Bytes() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bytes
}
