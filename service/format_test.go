package service_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"google.golang.org/grpc/codes"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// release is the next release of Grantor, on the same Redis as replicas of this one. It writes each record in a format
// that they do not know, and restores it.
type release struct {
	redis *goredis.Client
	key   []byte // authenticates records
}

func (c *cluster) nextRelease(t *testing.T) *release {
	t.Helper()
	ring, err := keys.Open(t.Context(), keys.Config{
		Store: c.open(t), Sealer: c.sealer, Algorithms: []jwks.Algorithm{jwks.ES256}, Rotation: 30 * 24 * time.Hour,
		MaxAge: time.Minute, Retention: registry.MaxLifetime,
	})
	must.Succeed(t, err)
	return &release{c.redis.Client(), keys.RecordKey(ring.Pepper())}
}

func (n *release) record(t *testing.T, record string) map[string]string {
	t.Helper()
	fields, err := n.redis.HGetAll(t.Context(), "grantor:{grantor}:"+record).Result()
	must.Succeed(t, err)
	return fields
}

// write stores a record under a new version and adds the change to the feed.
func (n *release) write(t *testing.T, record string, data []byte, kind, id string) {
	t.Helper()
	key, version := "grantor:{grantor}:"+record, fmt.Sprint(time.Now().UnixNano())
	mac := hmac.New(sha256.New, n.key)
	for _, part := range []string{key, version, string(data)} {
		_ = binary.Write(mac, binary.BigEndian, uint64(len(part)))
		mac.Write([]byte(part))
	}
	fields := []any{"v", version, "d", data}
	if record != "ring" {
		fields = append(fields, "m", mac.Sum(nil))
	}
	must.Succeed(t, n.redis.HSet(t.Context(), key, fields...).Err())
	must.Succeed(t, n.redis.XAdd(t.Context(), &goredis.XAddArgs{Stream: "grantor:{grantor}:feed", Values: []string{"k", kind, "i", id, "t", ""}}).Err())
}

// newer returns the record in the format after the newest that this release reads, with a field that it does not know.
func newer(t *testing.T, record, data string) []byte {
	t.Helper()
	var fields map[string]any
	must.Succeed(t, json.Unmarshal([]byte(data), &fields))
	fields["later"] = "x"
	for _, f := range redisstore.Formats() {
		if f.Record == record {
			fields["format"] = f.Newest + 1
		}
	}
	return must.Get(json.Marshal(fields))
}

// TestNewerRelease has replicas of this release share a Redis with a newer one. A record that the newer one has written is
// refused and logged, and neither partly used nor overwritten; everything else keeps working, and so does the record once
// it is restored.
func TestNewerRelease(t *testing.T) {
	c := newCluster(t)
	r, other := c.start(t), c.start(t)
	r.apply(t, manifest())
	must.Succeed(t, other.CatchUp(t.Context()))
	raw := r.token(t)
	kids := r.keyIDs(t)
	next := c.nextRelease(t)
	for _, test := range []struct {
		record, kind, id string
		// issues and introspects report whether svc gets tokens and res1 may introspect; ready whether the replica is ready.
		issues, introspects, ready bool
	}{
		{"client:svc", "client", "svc", false, true, true},
		{"client:res1", "client", "res1", true, false, true},
		{"resources", "resources", "", false, true, false},
		{"ring", "ring", "", true, true, false},
	} {
		t.Run(test.record, func(t *testing.T) {
			name, _, _ := strings.Cut(test.record, ":")
			before := next.record(t, test.record)["d"]
			next.write(t, test.record, newer(t, name, before), test.kind, test.id)
			written := next.record(t, test.record)
			for _, replica := range []*replica{r, other} {
				must.Succeed(t, replica.CatchUp(t.Context()))
				must.Eventually(t, "readiness", func() bool { return (replica.Ready() == nil) == test.ready })
				if err := replica.Ready(); !test.ready && !strings.Contains(err.Error(), "newer release") {
					t.Errorf("not ready: got %v", err)
				}
				_, err := replica.issue(t.Context())
				expectCode(t, err, map[bool]codes.Code{true: codes.OK, false: codes.Unavailable}[test.issues])
				_, err = replica.ask(t.Context(), raw)
				expectCode(t, err, map[bool]codes.Code{true: codes.OK, false: codes.Unavailable}[test.introspects])
				if replica.log.count("newer release") == 0 {
					t.Error("the log does not report it")
				}
			}
			// Nothing that this release does overwrites it.
			_, err := r.Editor().Apply(t.Context(), manifest(func(c *registry.Client) { c.Name = "Changed" }), registry.ApplyOptions{})
			if want := test.record == "ring"; want != (err == nil) || err != nil && !errors.Is(err, registry.ErrNewer) {
				t.Errorf("applying: got %v", err)
			}
			if got := next.record(t, test.record); !reflect.DeepEqual(got, written) {
				t.Errorf("it was overwritten: got %q, want %q", got, written)
			}
			if test.record == "ring" {
				_, err := keys.Open(t.Context(), keys.Config{
					Store: c.open(t), Sealer: c.sealer, Algorithms: []jwks.Algorithm{jwks.ES256}, Rotation: 30 * 24 * time.Hour,
					MaxAge: time.Minute, Retention: registry.MaxLifetime,
				})
				if !errors.Is(err, keys.ErrNewer) {
					t.Errorf("a start: got %v, want %v", err, keys.ErrNewer)
				}
			}
			next.write(t, test.record, []byte(before), test.kind, test.id)
			for _, replica := range []*replica{r, other} {
				must.Succeed(t, replica.CatchUp(t.Context()))
				must.Eventually(t, "ready again", func() bool { return replica.Ready() == nil })
				replica.expectActive(t, replica.token(t), true)
			}
		})
	}
	if got := r.keyIDs(t); !reflect.DeepEqual(got, kids) {
		t.Errorf("the keys are %q, want %q", got, kids)
	}

	t.Run("a kind of change", func(t *testing.T) {
		for range 3 {
			must.Succeed(t, next.redis.XAdd(t.Context(), &goredis.XAddArgs{
				Stream: "grantor:{grantor}:feed", Values: []string{"k", "later", "i", "x", "t", "tomorrow"},
			}).Err())
		}
		must.Succeed(t, r.revoke(t.Context(), raw))
		must.Succeed(t, r.CatchUp(t.Context()))
		r.expectActive(t, raw, false)
		if got := r.log.count("kind=later"); got != 1 {
			t.Errorf("it is logged %d times, want once", got)
		}
	})
}

// TestNewerClientInList lists clients, one of which a newer release has written.
func TestNewerClientInList(t *testing.T) {
	c := newCluster(t)
	r := c.start(t)
	r.apply(t, withBoss(manifest()))
	ctx := r.adminContext(t)
	next := c.nextRelease(t)
	next.write(t, "client:res1", newer(t, "client", next.record(t, "client:res1")["d"]), "client", "res1")
	answer, err := grantorv1.NewClientServiceClient(r.conn).ListClients(ctx, &grantorv1.ListClientsRequest{})
	must.Succeed(t, err)
	var ids []string
	for _, client := range answer.GetClients() {
		ids = append(ids, client.GetClientId())
	}
	if got := strings.Join(ids, " "); got != "boss svc" {
		t.Errorf("got %q, want the two that can be read", got)
	}
	if r.log.count("client_id=res1") == 0 {
		t.Error("the log does not name the client that is left out")
	}
}
