package clientauth

import (
	"runtime"
	"time"

	"github.com/grantorhq/grantor/service/clientsecret"
)

// MaxQueued is the capacity of the queue for slow hashes.
var MaxQueued = maxQueued

// MaxPerSource is the maximum number of queued requests of one source, MaxPerSite that of one IPv6 network of 48 bits.
const (
	MaxPerSource = maxPerSource
	MaxPerSite   = maxPerSite
)

// MaxSuspects is the maximum number of queued requests of all suspect sources.
var MaxSuspects = maxSuspects

// Parallel returns how many slow hashes are computed at once.
func Parallel() int { return runtime.GOMAXPROCS(0) }

// OnFind calls f before each comparison of a secret with those of a client.
func (a *Authenticator) OnFind(f func(secret string)) {
	find := a.secrets.find
	a.secrets.find = func(secrets []clientsecret.Secret, secret string, now time.Time) int {
		f(secret)
		return find(secrets, secret, now)
	}
}

// SetFind replaces the comparison of a secret with those of a client.
func (a *Authenticator) SetFind(find func(secrets []clientsecret.Secret, secret string, now time.Time) int) {
	a.secrets.find = find
}

// MaxUpgrades is the maximum number of hashes that wait to be replaced.
const MaxUpgrades = maxUpgrades

// UpgradeBackoff is how long no hash is replaced after a failure.
const UpgradeBackoff = upgradeBackoff
