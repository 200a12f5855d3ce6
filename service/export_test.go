package service

import (
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
)

// SetSendTimeout changes how long a follower of the revocations may take to accept an answer. It is called before the
// server starts.
func (s *Service) SetSendTimeout(d time.Duration) { s.servers.revocations.Hub.SendTimeout = d }

// Hasher returns the hasher of the clients' secrets.
func (s *Service) Hasher() *clientsecret.Hasher { return s.domain.hasher }
