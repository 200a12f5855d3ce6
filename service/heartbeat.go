package service

import (
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/keys"
)

// Status describes this replica as far as the service knows it, for [heartbeat.Run].
func (s *Service) Status() heartbeat.Status {
	age, complete := s.domain.feed.Age()
	if !complete {
		age = -1
	}
	status := heartbeat.Status{FeedAge: age}
	for _, key := range s.domain.ring.List() {
		status.Published = append(status.Published, key.Public.ID())
		if key.State == keys.Active {
			status.Active = append(status.Active, key.Public.ID())
		}
	}
	return status
}
