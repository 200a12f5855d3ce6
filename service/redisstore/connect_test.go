package redisstore_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
)

// describe returns the options with which a client would connect.
func describe(client redis.UniversalClient) string {
	switch c := client.(type) {
	case *redis.ClusterClient:
		o := c.Options()
		return fmt.Sprintf("cluster %v user=%s password=%s tls=%v pool=%d", o.Addrs, o.Username, o.Password, o.TLSConfig != nil, o.PoolSize)
	case *redis.Client:
		o := c.Options()
		return fmt.Sprintf("%s/%d user=%s password=%s tls=%v pool=%d", o.Addr, o.DB, o.Username, o.Password, o.TLSConfig != nil, o.PoolSize)
	}
	return fmt.Sprintf("%T", client)
}

func TestConnect(t *testing.T) {
	for url, want := range map[string]string{
		"redis://localhost:6379?pool_size=7":                              "localhost:6379/0 user= password= tls=false pool=7",
		"redis://h/3?pool_size=7":                                         "h:6379/3 user= password= tls=false pool=7",
		"redis://u:p@h:1/2?pool_size=7":                                   "h:1/2 user=u password=p tls=false pool=7",
		"redis://:a%2Fb%40%3F%23@h:1?pool_size=7":                         "h:1/0 user= password=a/b@?# tls=false pool=7",
		"redis://:h@h:1?pool_size=7":                                      "h:1/0 user= password=h tls=false pool=7",
		"redis://:a@b@h:1?pool_size=7":                                    "h:1/0 user= password=a@b tls=false pool=7",
		"rediss://u:p@h:1?pool_size=7":                                    "h:1/0 user=u password=p tls=true pool=7",
		"redis://h:1?pool_size=7&cluster=false":                           "h:1/0 user= password= tls=false pool=7",
		"redis://h:1?pool_size=7&cluster=true":                            "cluster [h:1] user= password= tls=false pool=7",
		"rediss://u:p@h:1?addr=i:2&addr=j:3&pool_size=7":                  "cluster [h:1 i:2 j:3] user=u password=p tls=true pool=7",
		"redis://h:1/2?master_name=m&pool_size=7":                         "FailoverClient/2 user= password= tls=false pool=7",
		"redis://s:q@h:1?master_name=m&pool_size=7&username=u&password=p": "FailoverClient/0 user=u password=p tls=false pool=7",
		"redis://h:1?master_name=m&addr=i:2&pool_size=7":                  "FailoverClient/0 user= password= tls=false pool=7",
	} {
		client, err := redisstore.Connect(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if got := describe(client); got != want {
			t.Errorf("%s: got %s, want %s", url, got, want)
		}
		must.Succeed(t, client.Close())
	}
}

func TestConnectRefuses(t *testing.T) {
	for _, url := range []string{
		"", "localhost:6379", "http://u:sesame@h", "redis:u:sesame@h", "u:sesame@h:1", "sesame:x@h:1",
		"redis://u:sesame@h:port", "redis://u:sesame@h:1/db", "redis://u:sesame@h:1/1/2", "redis://u:sesame@h:1?pool_size=x",
		"redis://u:sesame@h:1?unknown=1", "redis://u:sesame@h:1?cluster=yes", "redis://u:sesame@h:1?cluster=1&addr=i:2",
		"redis://u:sesame@h:1?cluster=true&unknown=1", "redis://u:sesame@h:1?master_name=m&unknown=1", "redis://u:%sesame@h:1",
		"http://u:sesame@h?cluster=true", "http://u:sesame@h?master_name=m", "redis://u:sesame@[::1:1",
		// A password with a character that ends the host: what follows parses as another part of the URL.
		"redis://u:12/sesame@h:1", "redis://u:12?sesame@h:1", "redis://u:12#sesame@h:1", "redis://:sesame/1@h:1",
		"redis://u:12/sesame@h:1?cluster=true", "redis://u:12/sesame@h:1?master_name=m", "redis://u:a@12/sesame@h:1",
		"redis://u:se same@h:1", "redis://u:sesame\n@h:1",
	} {
		client, err := redisstore.Connect(url)
		if err == nil {
			t.Errorf("%q: got %s, want an error", url, describe(client))
			must.Succeed(t, client.Close())
			continue
		}
		if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "same@") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

// TestConnected connects to servers of each kind by their URLs.
func TestConnected(t *testing.T) {
	server := redistest.New(t)
	must.Succeed(t, server.Client().Do(t.Context(), "ACL", "SETUSER", "grantor", "on", ">a/b@", "~*", "+@all").Err())
	cluster, _ := redistest.Cluster(t)
	sentinel := redistest.New(t, "--sentinel")
	must.Succeed(t, sentinel.Client().Do(t.Context(), "SENTINEL", "MONITOR", "m", "127.0.0.1", server.Port(), 1).Err())
	for name, url := range map[string]string{
		"standalone": server.URL(),
		"user":       strings.Replace(server.URL(), "redis://", "redis://grantor:a%2Fb%40@", 1),
		"cluster":    cluster.URL() + "?cluster=true",
		"sentinel":   sentinel.URL() + "?master_name=m",
	} {
		t.Run(name, func(t *testing.T) {
			client, err := redisstore.Connect(url)
			must.Succeed(t, err)
			defer func() { _ = client.Close() }()
			redisstore.Watch(client, func(_ context.Context, command string) func(error) {
				return func(err error) {
					if err != nil {
						t.Errorf("%s: %v", command, err) // also of the commands that set a connection up
					}
				}
			})
			k := newKit(client)
			k.expectClient(t, k.save(t, newClient("a")))
			if _, err := k.Check(t.Context()); err != nil {
				t.Errorf("Check: %v", err)
			}
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		client, err := redisstore.Connect(strings.Replace(server.URL(), "redis://", "redis://grantor:sesame@", 1))
		must.Succeed(t, err)
		defer func() { _ = client.Close() }()
		if err := newKit(client).SaveClient(t.Context(), newClient("a")); err == nil || strings.Contains(err.Error(), "sesame") {
			t.Errorf("got %v, want an error without the password", err)
		}
	})
}

func TestNew(t *testing.T) {
	for prefix, ok := range map[string]bool{
		redisstore.DefaultPrefix: true, "a:": true, "a:b:": true, "prod-1.eu:": true,
		"": false, ":": false, "a": false, "a:b": false, "{a}:": false, "a}:": false, "a b:": false, "a\n:": false, "*:": false, "a?:": false,
		"[a:": false,
	} {
		if _, err := redisstore.New(nil, prefix, retention); (err == nil) != ok {
			t.Errorf("%q: got %v, want ok %v", prefix, err, ok)
		}
	}
}

func TestCheck(t *testing.T) {
	server := redistest.New(t)
	k := newKit(server.Client())
	config := func(name, value string) { must.Succeed(t, k.client.ConfigSet(t.Context(), name, value).Err()) }
	const noFile = "this Redis keeps no append-only file"
	for _, test := range []struct {
		policy, appendOnly string
		warning, failure   string
	}{
		{"noeviction", "no", noFile, ""},
		{"noeviction", "yes", "", ""},
		{"volatile-lru", "yes", "", ""}, // clients and revocations never expire
		{"volatile-ttl", "no", noFile, ""},
		{"allkeys-lru", "yes", "", "allkeys-lru"},
		{"allkeys-lfu", "no", "", "allkeys-lfu"},
		{"allkeys-random", "yes", "", "allkeys-random"},
	} {
		t.Run(test.policy+" "+test.appendOnly, func(t *testing.T) {
			config("maxmemory-policy", test.policy)
			config("appendonly", test.appendOnly)
			warnings, err := k.Check(t.Context())
			if (err == nil) != (test.failure == "") || (err != nil && !strings.Contains(err.Error(), test.failure)) {
				t.Errorf("got %v, want an error that names %q", err, test.failure)
			}
			if got := strings.Join(warnings, "\n"); !strings.HasPrefix(got, test.warning) || (test.warning == "") != (got == "") {
				t.Errorf("got the warning %q, want %q", got, test.warning)
			}
		})
	}
	_, client := redistest.Cluster(t)
	must.Succeed(t, client.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lru").Err())
	if _, err := newKit(client).Check(t.Context()); err == nil {
		t.Error("a Cluster that evicts keys passes")
	}
	server.Kill()
	if _, err := k.Check(t.Context()); err == nil {
		t.Error("a server that does not run passes")
	}
}

// go-redis hides a short outage by retrying. TestServerComesBackEmpty checks that the loss of all data does not go unnoticed.
func TestServerComesBackEmpty(t *testing.T) {
	server := redistest.New(t)
	k := newKit(server.Client())
	k.save(t, newClient("a"))
	f := follow(t, k)
	must.Succeed(t, f.CatchUp(t.Context()))
	server.Kill()
	server.Start()
	f.expectLost(t)
	must.Succeed(t, k.SaveClient(t.Context(), newClient("b")))
	must.Succeed(t, f.CatchUp(t.Context()))
	if got := f.applied(); got[len(got)-1] != clientChange("b") {
		t.Errorf("applied %v, want the change of b at the end", got)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// TestServerFreezes checks that a call of a frozen server ends with its context.
func TestServerFreezes(t *testing.T) {
	server := redistest.New(t)
	k := newKit(server.Client())
	k.save(t, newClient("a"))
	server.Freeze()
	for name, call := range map[string]func() error{
		"Client":     func() error { _, err := k.Client(within(t, 50*time.Millisecond), clientID("a")); return err },
		"SaveClient": func() error { return k.SaveClient(within(t, 50*time.Millisecond), newClient("b")) },
		"End":        func() error { _, err := k.End(within(t, 50*time.Millisecond)); return err },
		"LoadRing":   func() error { _, _, err := k.LoadRing(within(t, 50*time.Millisecond)); return err },
	} {
		if err := call(); err == nil {
			t.Errorf("%s: a frozen server answers", name)
		}
	}
	server.Thaw()
	if _, err := k.Client(within(t, timeout), clientID("a")); err != nil {
		t.Errorf("thawed: %v", err)
	}
}

// TestConnectedAtOnce opens the first connections of a client by concurrent reads and writes, for the race detector.
func TestConnectedAtOnce(t *testing.T) {
	server := redistest.New(t)
	cluster, _ := redistest.Cluster(t)
	for name, url := range map[string]string{"standalone": server.URL(), "cluster": cluster.URL() + "?cluster=true"} {
		t.Run(name, func(t *testing.T) {
			for range 10 {
				client, err := redisstore.Connect(url)
				must.Succeed(t, err)
				k := newKit(client)
				var group sync.WaitGroup
				for range 4 {
					group.Go(func() {
						if err := k.Publish(t.Context(), revoked(time.Now())); err != nil {
							t.Error(err)
						}
					})
					group.Go(func() {
						if _, err := k.End(t.Context()); err != nil {
							t.Error(err)
						}
					})
				}
				group.Wait()
				must.Succeed(t, client.Close())
			}
		})
	}
}
