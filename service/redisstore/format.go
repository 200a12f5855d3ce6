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

// The newest formats of the records that this release reads. These rules allow a newer release to run beside an older one
// on one Redis:
//
//   - Every new field is a new format, because a release that does not know the field would drop it. So a record has no
//     fields other than those of its format.
//   - A release reads what every earlier release wrote, and writes the oldest format that can express the record: a new
//     format first appears when a new feature is used, not when a replica is upgraded.
//   - A record of a newer format is [registry.ErrNewer]. Nothing of it is used, since the unknown part may be what takes a
//     right away. It is not overwritten either, since every change begins with reading.
//   - A kind of change in the feed that a release does not know is ignored. So no new kind may be the only notice of
//     something that an older release must obey.
const (
	// Since format 2 a client may be restricted to networks. A release that does not know the restriction must not ignore it.
	// Since format 3 it may have keys, the name of a certificate, rules for identities from elsewhere, and be one that a workload
	// makes. Since format 2 a resource may require bound tokens.
	clientFormat    = 3
	resourcesFormat = 2
	trustFormat     = 1
	usageFormat     = 1
	replicaFormat   = 1

	// A checkpoint of a newer format is not used, nor deleted: the feed has what it has.
	checkpointFormat = 1
)

// Format is the range of formats of a record that this release reads.
type Format struct {
	Record string `json:"record"`
	Oldest int    `json:"oldest"`
	Newest int    `json:"newest"`
}

// Formats returns the formats of all records that have one.
func Formats() []Format {
	return []Format{{"client", 1, clientFormat}, {"resources", 1, resourcesFormat}, {"trust", 1, trustFormat}, {"ring", 1, keys.Format}}
}

// decode decodes a record of any format up to newest. found points to the field of record that holds its format.
func decode(what string, data []byte, record any, found *int, newest int) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(record)
	if err == nil {
		if _, end := decoder.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("trailing data")
		}
	}
	switch {
	case *found > newest: // whatever other errors it has
		return fmt.Errorf("the stored %s: %w: its format is %d, and this release reads up to %d", what, registry.ErrNewer, *found, newest)
	case err != nil:
		return fmt.Errorf("the stored %s: %w", what, err)
	case *found < 1:
		return fmt.Errorf("the stored %s has no format", what)
	}
	return nil
}
