package service

import "time"

// SetSlowest changes how long a follower of the revocations may take to accept an answer. It is called before Register.
func (s *Service) SetSlowest(d time.Duration) { s.slowest = d }

// SetArrival changes how long a request may take to arrive. It is called before ServerOptions.
func (s *Service) SetArrival(d time.Duration) { s.arrivals.patience = d }

// ArrivingPerSource is how many calls of one source have that long.
const ArrivingPerSource = arrivingPerSource

// Arriving gives how many calls have that long and have not arrived.
func (s *Service) Arriving() int {
	s.arrivals.mu.Lock()
	defer s.arrivals.mu.Unlock()
	return s.arrivals.all
}

// Heartbeat is how often an answer comes when there is nothing to tell.
const Heartbeat = heartbeatInterval
