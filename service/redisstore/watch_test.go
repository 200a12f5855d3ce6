package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/revocation"
)

// TestWatch checks that Watch reports commands and pipelines and whether they failed, but no blocking reads.
func TestWatch(t *testing.T) {
	server := redistest.New(t)
	client, err := redisstore.Connect(server.URL() + "?max_retries=-1&dial_timeout=300ms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	var mu sync.Mutex
	var got []string
	redisstore.Watch(client, func(_ context.Context, command string) func(error) {
		return func(err error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprint(command, " ", err == nil))
		}
	})
	store, err := redisstore.New(client, redisstore.DefaultPrefix, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, do := range []func() error{
		func() error { return client.Set(ctx, "a", "b", 0).Err() },
		func() error { return client.Get(ctx, "nothing").Err() },
		func() error { return client.LPush(ctx, "a", "b").Err() }, // a is not a list
		func() error { return redis.NewScript("return 1").Run(ctx, client, nil).Err() },
		func() error { return store.Publish(ctx, revocation.Change{Kind: revocation.ResourcesChanged}) },
		func() error { _, _, err := store.Read(ctx, revocation.Cursor{}, 10*time.Millisecond); return err },
		func() error { server.Stop(); return client.Get(ctx, "a").Err() },
	} {
		_ = do()
	}
	want := []string{"SET true", "GET true", "LPUSH false", "EVALSHA true", "EVAL true", "PIPELINE true", "GET false"}
	mu.Lock()
	defer mu.Unlock()
	// The commands that set a connection up are reported as well.
	got = slices.DeleteFunc(got, func(s string) bool { return !slices.Contains(want, s) })
	got = got[max(0, len(got)-len(want)):]
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
