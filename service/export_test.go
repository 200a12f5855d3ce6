package service

import "time"

// SetSendTimeout changes how long a follower of the revocations may take to accept an answer. It is called before the
// server starts.
func (s *Service) SetSendTimeout(d time.Duration) { s.revocations.SendTimeout = d }
