package clientauth

import (
	"runtime"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
)

// Queued is how many requests may wait for a slow hash.
var Queued = queued

// SourceShare is how many of them may be of one source.
const SourceShare = sourceShare

// SiteShare is how many of them may be of one IPv6 network of 48 bits.
const SiteShare = siteShare

// SuspectShare is how many of them may be of suspect sources.
var SuspectShare = suspectShare

// Parallel is how many slow hashes are computed at once.
func Parallel() int { return runtime.GOMAXPROCS(0) }

// Watch has f called for every comparison of a secret with those of a client, before it.
func (a *Authenticator) Watch(f func(secret string)) {
	find := a.secrets.find
	a.secrets.find = func(secrets []clientsecret.Secret, secret string, now time.Time) int {
		f(secret)
		return find(secrets, secret, now)
	}
}

// Pretend replaces the comparison with the secrets of a client.
func (a *Authenticator) Pretend(find func(secrets []clientsecret.Secret, secret string, now time.Time) int) {
	a.secrets.find = find
}

// MostUpgrades is how many hashes wait to be replaced.
const MostUpgrades = mostUpgrades

// UpgradePause is how long nothing is replaced after a failure.
const UpgradePause = upgradePause
