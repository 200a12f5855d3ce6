package service

import "time"

// SetSlowest changes how long a follower of the revocations may take to accept an answer. It is called before Register.
func (s *Service) SetSlowest(d time.Duration) { s.slowest = d }

// Heartbeat is how often an answer comes when there is nothing to tell.
const Heartbeat = heartbeat
