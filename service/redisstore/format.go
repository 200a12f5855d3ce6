package redisstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/registry"
)

// The newest formats of the records that this release reads. By these rules a newer release may run beside an older one on
// one Redis:
//
//   - Every new field is a new format, for a release that does not know it would drop it. So a record has no other
//     fields than those of its format.
//   - A release reads what every release before it wrote, and writes the oldest format that says all that there is to
//     say: a new one first appears when something new is used, not when a replica is upgraded.
//   - A record of a newer format is [registry.ErrNewer]. Nothing of it is used, since what is not understood may be
//     what takes a right away; and nothing is written over it, since every change begins with reading.
//   - A kind of change that a release does not know is passed over. So no newer kind may be the only word of something
//     that an older release must obey.
const (
	// Since 2 a client may be bound to networks. A release that knows nothing of that must not let it in from anywhere.
	clientFormat    = 2
	resourcesFormat = 1
	usageFormat     = 1
	replicaFormat   = 1
)

// Format says which formats of a record this release reads.
type Format struct {
	Record string `json:"record"`
	Oldest int    `json:"oldest"`
	Newest int    `json:"newest"`
}

// Formats gives those of all records that have one.
func Formats() []Format {
	return []Format{{"client", 1, clientFormat}, {"resources", 1, resourcesFormat}, {"ring", 1, keys.Format}}
}

// decode reads a record into what its newest format has. found gives the format that it was read to have.
func decode(what string, data []byte, record any, found *int, newest int) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(record)
	if err == nil {
		if _, end := decoder.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	switch {
	case *found > newest: // whatever else is wrong with it
		return fmt.Errorf("the stored %s: %w: its format is %d, and this release reads up to %d", what, registry.ErrNewer, *found, newest)
	case err != nil:
		return fmt.Errorf("the stored %s: %w", what, err)
	case *found < 1:
		return fmt.Errorf("the stored %s has no format", what)
	}
	return nil
}
