package service

import (
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/replicas"
)

// Status describes this replica as far as the service knows it, for [replicas.Run].
func (s *Service) Status() replicas.Status {
	age, complete := s.issuer.feed.Age()
	if !complete {
		age = -1
	}
	status := replicas.Status{FeedAge: age}
	for _, key := range s.issuer.ring.List() {
		status.Published = append(status.Published, key.Public.ID())
		if key.State == keys.Active {
			status.Active = append(status.Active, key.Public.ID())
		}
	}
	return status
}
