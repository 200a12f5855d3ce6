package limit

import (
	"net/netip"
	"sync"

	"github.com/grantorhq/grantor/service/remoteaddr"
)

// The bounds of an [Intake] and what requests count for in it.
const (
	// MaxIntake is how many bytes the requests of all sources may hold at once, MaxIntakePerSource those of one source.
	MaxIntake          = 128 << 20
	MaxIntakePerSource = 48 << 20
	// RequestCost is what a request counts for beside its body: its goroutine, stack, headers and buffers.
	RequestCost = 16 << 10
	// crowded is how many bytes make the requests so many that those still to be read get less time.
	crowded          = MaxIntake / 2
	crowdedPerSource = MaxIntakePerSource / 2
)

// Intake is the budget of bytes for the requests under way, of both wires together. A request enters it before its body is
// read, with the most that the body can have. So the memory that unread and unanswered requests hold is bounded as a whole,
// however many connections, streams and sources share it. It is safe for concurrent use by multiple goroutines, and its zero
// value is ready to use.
type Intake struct {
	mu      sync.Mutex
	bytes   int
	sources map[netip.Addr]int
}

// Enter reports whether a request of the source may hold so many bytes beside [RequestCost], and whether it gets little time
// to arrive because many are under way. After a true result, the caller calls [Intake.Leave] exactly once with the same
// arguments.
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

// Bytes returns how many bytes the requests under way hold at most.
func (i *Intake) Bytes() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bytes
}
