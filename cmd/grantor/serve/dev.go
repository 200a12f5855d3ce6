package serve

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alicebob/miniredis/v2"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/manifest"
	"github.com/grantorhq/grantor/service/keys"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/registry"
)

// developmentYAML registers the only client of development mode.
//
//go:embed dev.yaml
var developmentYAML []byte

// develop adjusts the settings to development mode: all ports on loopback, and no delay at the end. It keeps what was
// set explicitly.
func (s *Settings) develop() {
	for _, address := range []*string{&s.httpListen, &s.grpcListen, &s.opsListen} {
		if strings.HasPrefix(*address, ":") {
			*address = "127.0.0.1" + *address
		}
	}
	if s.shutdownDelay == defaultShutdownDelay {
		s.shutdownDelay = 0 // the person who presses Ctrl-C is the only client
	}
}

// realRedis reports whether the Redis outlives the process.
func (s *Settings) realRedis() bool {
	return s.Redis != "" && !strings.HasSuffix(s.Redis, embeddedMark)
}

// embeddedMark is a URL parameter that marks the embedded Redis; go-redis shows it in CLIENT LIST.
const embeddedMark = "?client_name=embedded"

// embeddedRedis starts a Redis in this process, on a free port of loopback.
func embeddedRedis() (url string, stop func(), err error) {
	redis := miniredis.NewMiniRedis()
	if err := redis.Start(); err != nil {
		return "", nil, fmt.Errorf("starting the embedded Redis: %w", err)
	}
	return "redis://" + redis.Addr() + embeddedMark, redis.Close, nil
}

// developmentSealer seals with a key that is public. Nothing in the embedded Redis outlives the process; with a real
// Redis, the log warns about it.
func developmentSealer() (*keys.Sealer, error) {
	return keys.NewSealer([]byte("grantor development: not secret!"))
}

// errForeignRedis refuses the Redis of someone else.
var errForeignRedis = cli.SettingError("dev", errors.New("this Redis has data that development mode did not make, and development mode would register a client with a public secret there; name another redis or redis-prefix, or none"))

// checkDevelopmentRedis refuses a Redis with data that development mode did not make. Development mode made what is under a
// ring that its public key seals. Under any other ring, it made its own client and resource, if there is nothing else.
func checkDevelopmentRedis(ctx context.Context, store *redisstore.Store, sealer *keys.Sealer) error {
	public, err := developmentSealer()
	if err != nil {
		return err
	}
	pepper, _, err := keys.Peek(ctx, store, public)
	if err == nil && pepper != nil {
		return nil
	}
	if errors.Is(err, keys.ErrSealed) {
		pepper, _, err = keys.Peek(ctx, store, sealer)
	}
	switch {
	case errors.Is(err, keys.ErrSealed):
		return errForeignRedis
	case err != nil:
		return err
	}
	store.Authenticate(keys.RecordKey(pepper)) // the service does that again once it has opened or made the ring
	made, err := onlyDevelopment(ctx, store, pepper != nil)
	if err == nil && !made {
		return errForeignRedis
	}
	return err
}

// onlyDevelopment reports whether the registry has the client and the resource of development mode and nothing else, if
// there is a ring. Without one, it must be empty.
func onlyDevelopment(ctx context.Context, store *redisstore.Store, ring bool) (bool, error) {
	m, err := developmentManifest()
	if err != nil {
		return false, err
	}
	clients, err := store.Clients(ctx, oauth.ClientID{}, 2)
	if err != nil {
		return false, err
	}
	resources, err := store.Resources(ctx)
	switch {
	case errors.Is(err, registry.ErrAltered):
		return false, nil // of a ring that is gone
	case err != nil:
		return false, err
	case !ring:
		return len(clients) == 0 && len(resources.List()) == 0, nil
	}
	list := resources.List()
	return len(clients) == 1 && clients[0].ID == m.Clients[0].ID && len(list) == 1 && list[0].ID == m.Resources[0].ID, nil
}

func developmentManifest() (*manifest.File, error) {
	return manifest.Parse("dev.yaml", developmentYAML)
}

// missingDevelopment returns the manifest of development mode without what is registered already, so that development mode
// changes neither a client nor a resource.
func missingDevelopment(ctx context.Context, editor *registry.Editor) (*manifest.File, error) {
	m, err := developmentManifest()
	if err != nil {
		return nil, err
	}
	resources, err := editor.Resources(ctx)
	if err != nil {
		return nil, err
	}
	m.Resources = slices.DeleteFunc(m.Resources, func(r registry.Resource) bool {
		_, exists := resources.Get(r.ID)
		return exists
	})
	_, err = editor.Client(ctx, m.Clients[0].ID)
	switch {
	case err == nil:
		m.Clients = nil
	case !errors.Is(err, registry.ErrNotFound):
		return nil, err
	}
	return m, nil
}
