package clientauth

import "sync/atomic"

// Stats are the counts of an [Authenticator] since it was made, and the state of its queue for slow hashes.
type Stats struct {
	// Generated counts the checked secrets that have the form of a generated one, Chosen those that took a slow hash.
	Generated, Chosen Checks
	// Remembered counts the chosen secrets that were accepted without a hash because they had been proven before.
	Remembered uint64
	// Queued is the number of requests in the queue, Running the number of those that compute a hash, and Places the
	// capacity of the queue.
	Queued, Running, Places int
	// Rejected counts the requests that found no place in the queue.
	Rejected uint64
}

// Checks counts the checked secrets that matched their client and those that did not.
type Checks struct{ Right, Wrong uint64 }

// Stats returns the current counts.
func (a *Authenticator) Stats() Stats {
	s := a.secrets
	queued, rejected := s.queue.counts()
	return Stats{
		Generated: s.generated.load(), Chosen: s.chosen.load(), Remembered: s.recalled.Load(),
		Queued: queued, Running: int(s.queue.running.Load()), Places: maxQueued, Rejected: rejected,
	}
}

// counters count the outcomes of checks.
type counters struct {
	generated, chosen checks
	recalled          atomic.Uint64
}

type checks struct{ right, wrong atomic.Uint64 }

func (c *checks) count(m match) {
	if m.found() {
		c.right.Add(1)
	} else {
		c.wrong.Add(1)
	}
}

func (c *checks) load() Checks { return Checks{c.right.Load(), c.wrong.Load()} }
