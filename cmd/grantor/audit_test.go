package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/redisstore"
	"github.com/grantorhq/grantor/service/redistest"
	"github.com/grantorhq/grantor/service/telemetry"
)

// trailIn returns the audit trail of an issuer in a Redis.
func trailIn(t *testing.T, server *redistest.Server, prefix string) *redisstore.AuditTrail {
	t.Helper()
	client, err := redisstore.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	store, err := redisstore.New(client, prefix, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return store.AuditTrail(100_000)
}

func keepEvent(t *testing.T, trail *redisstore.AuditTrail, stream telemetry.Stream, ago time.Duration, event, attributes string) {
	t.Helper()
	entry := telemetry.Entry{Time: time.Now().Add(-ago), Event: event, Attributes: []byte(attributes)}
	if err := trail.Append(t.Context(), stream, []telemetry.Entry{entry}); err != nil {
		t.Fatal(err)
	}
}

// newAuditTrail returns a Redis with a few events, each with its own "jti".
func newAuditTrail(t *testing.T) (*redistest.Server, *redisstore.AuditTrail) {
	t.Helper()
	server := redistest.New(t)
	trail := trailIn(t, server, redisstore.DefaultPrefix)
	keepEvent(t, trail, telemetry.Changes, 3*time.Hour, "client.created", `{"by":"boss","peer":"[2001:db8::1]:9","id":"worker","changes":[{"field":"scopes","from":"","to":"api1 api2"}],"jti":"a"}`)
	keepEvent(t, trail, telemetry.Refusals, 2*time.Hour, "token.refused", `{"client_id":"worker","auth_method":"","peer":"192.0.2.1:5","error":"invalid_client","reason":"wrong_secret","cause":"a \"cause\"","jti":"b"}`)
	keepEvent(t, trail, telemetry.Decisions, time.Hour, "token.issued", `{"client_id":"worker","peer":"192.0.2.1:6","jti":"c","aud":["urn:a","urn:b"],"lifetime":3600}`)
	keepEvent(t, trail, telemetry.Decisions, 30*time.Minute, "token.issued", `{"client_id":"other","peer":"192.0.2.10:6","jti":"d"}`)
	keepEvent(t, trail, telemetry.Changes, time.Minute, "resource.changed", `{"by":"worker","id":"worker","jti":"e"}`)
	return server, trail
}

// listed returns the attribute jti of each line of JSON.
func listed(t *testing.T, out string) string {
	t.Helper()
	var ids strings.Builder
	for line := range strings.Lines(out) {
		var event struct {
			Time  time.Time `json:"time"`
			Event string    `json:"event"`
			ID    string    `json:"jti"`
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Event == "" || event.Time.IsZero() {
			t.Fatalf("%q is no event: %v", line, err)
		}
		ids.WriteString(event.ID)
	}
	return ids.String()
}

// TestAuditFilters lists events by each filter.
func TestAuditFilters(t *testing.T) {
	server, _ := newAuditTrail(t)
	until := time.Now().Add(-45 * time.Minute).Format(time.RFC3339)
	for args, want := range map[string]string{
		"": "abcde", "--limit 2": "de", "-n 0": "",
		"--event token.issued": "cd", "--event token.*": "bcd", "--event client.* --event resource.changed": "ae", "--event key.*": "",
		"--client worker": "abc", "--client nobody": "", "--by boss": "a", "--reason wrong_secret": "b", "--jti c": "c",
		"--peer 192.0.2.1": "bc", "--peer 192.0.2.1:6": "c", "--peer 2001:db8::1": "a",
		"--since 90m": "cde", "--since " + time.Now().Add(24*time.Hour).UTC().Format(time.DateOnly): "", "--since 2020-01-31": "abcde", "--since 90m --until 10m": "cd", "--until " + until: "abc", "--since 90m --client worker -n 1": "c",
	} {
		if got := listed(t, grantor(t, "audit -o json --redis "+server.URL()+" "+args)); got != want {
			t.Errorf("%s: got %q, want %q", args, got, want)
		}
	}
}

// TestAuditPages lists more events than one page has, in their order.
func TestAuditPages(t *testing.T) {
	server := redistest.New(t)
	trail := trailIn(t, server, redisstore.DefaultPrefix)
	var entries []telemetry.Entry
	at, want := time.Now(), ""
	for i := range 2500 {
		id := fmt.Sprintf("%04d", i)
		entries = append(entries, telemetry.Entry{Time: at, Event: "token.issued", Attributes: []byte(`{"jti":"` + id + `"}`)})
		want += id
	}
	if err := trail.Append(t.Context(), telemetry.Decisions, entries); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, grantor(t, "audit -o json -n 100000 --redis "+server.URL())); got != want {
		t.Errorf("got %d characters, want %d, in order", len(got), len(want))
	}
}

// TestAuditText checks the output for people: a row for each event, with nothing that could act on a terminal.
func TestAuditText(t *testing.T) {
	server, trail := newAuditTrail(t)
	keepEvent(t, trail, telemetry.Decisions, 0, "token.refused\x1b[2J", `{"client_id":"\u001b[31mred\u202e","peer":"p","zz\u0007":"new\nline","all":true,"no":null}`)
	keepEvent(t, trail, telemetry.Decisions, 0, "mine", `[1]`)
	out := grantor(t, "audit --redis "+server.URL())
	safe(t, out)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(lines) != 8 || !strings.HasPrefix(lines[0], "TIME") {
		t.Fatalf("got %q, want a header and 7 events", lines)
	}
	for i, want := range map[int]string{
		1: `client.created   boss      [2001:db8::1]:9  id=worker changes=scopes:""->"api1 api2" jti=a`,
		2: `token.refused    worker    192.0.2.1:5      error=invalid_client reason=wrong_secret cause="a \"cause\"" jti=b`,
		3: `token.issued     worker    192.0.2.1:6      jti=c aud=urn:a,urn:b lifetime=3600`,
		6: `all=true zz?=new?line`,
		7: `unreadable=[1]`,
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasSuffix(got, strings.Join(strings.Fields(want), " ")) {
			t.Errorf("line %d: got %q, want %q at its end", i, got, want)
		}
	}
	out = grantor(t, "audit -o json --redis "+server.URL())
	safe(t, out)
	listed(t, out)
}

// TestAuditFollow prints new events, continues after an outage of Redis, and ends without an error when it is
// interrupted.
func TestAuditFollow(t *testing.T) {
	server, trail := newAuditTrail(t)
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errOut must.Buffer
	cmd := newCommand()
	cmd.SetArgs([]string{"audit", "-f", "-n", "1", "-o", "json", "--event", "token.*", "--redis", server.URL() + "?max_retries=-1"})
	cmd.SetOut(&out)
	cmd.SetErr(&errOut)
	ended := make(chan error)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	has := func(want string) func() bool { return func() bool { return listed(t, out.String()) == want } }
	must.Eventually(t, "printing the last event", has("d"))
	keepEvent(t, trail, telemetry.Decisions, 0, "token.issued", `{"jti":"1"}`)
	keepEvent(t, trail, telemetry.Changes, 0, "client.created", `{"jti":"2"}`)
	keepEvent(t, trail, telemetry.Refusals, time.Hour, "token.refused", `{"jti":"3"}`)
	must.Eventually(t, "printing the next events", has("d13"))
	server.Kill()
	must.Eventually(t, "telling of the outage", func() bool { return strings.Contains(errOut.String(), "Redis does not answer") })
	server.Start()
	must.Eventually(t, "printing events after the outage", func() bool {
		keepEvent(t, trail, telemetry.Decisions, 0, "token.issued", `{"jti":"4"}`)
		return strings.Contains(listed(t, out.String()), "4")
	})
	interrupt()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error", err)
	}
	safe(t, errOut.String())
}

// TestAuditErrors expects each error to be one line, with its exit code.
func TestAuditErrors(t *testing.T) {
	server := redistest.New(t)
	for args, c := range map[string]struct {
		code int
		want string
	}{
		"": {cli.ExitUsage, "redis: is required"},
		"--redis " + server.URL() + " --event token.isued":                {cli.ExitUsage, `event: there is no event "token.isued"; a * is a wildcard only at the end; the events are token.issued, token.refused, `},
		"--redis " + server.URL() + " --event *.issued":                   {cli.ExitUsage, "a * is a wildcard only at the end"},
		"--redis " + server.URL() + " --reason wrong_secrets":             {cli.ExitUsage, `reason: there is no reason "wrong_secrets"; the reasons are unknown_client, wrong_secret, `},
		"--redis " + server.URL() + " --event nothing.*":                  {cli.ExitUsage, "event: "},
		"--redis " + server.URL() + " --since yesterday":                  {cli.ExitUsage, "since: "},
		"--redis " + server.URL() + " --until 25:00":                      {cli.ExitUsage, "until: "},
		"--redis " + server.URL() + " --until 1h --follow":                {cli.ExitUsage, "until: "},
		"--redis " + server.URL() + " --limit=-1":                         {cli.ExitUsage, "limit: "},
		"--redis " + server.URL() + " -o yaml":                            {cli.ExitUsage, "output: "},
		"--redis " + server.URL() + " --redis-prefix a{":                  {cli.ExitUsage, "redis-prefix: "},
		"--redis redis://user:hidden@127.0.0.1:1?max_retries=-1":          {cli.ExitUnavailable, "refused"},
		"--redis " + server.URL() + " --config /nonexistent/grantor.yaml": {cli.ExitUsage, "config: "},
	} {
		run(t, append([]string{"audit"}, strings.Fields(args)...)...).Exits(t, c.code, c.want, "hidden")
	}
}

// TestAuditSettings takes the Redis from the file of grantor serve, and from the environment.
func TestAuditSettings(t *testing.T) {
	server := redistest.New(t)
	keepEvent(t, trailIn(t, server, "mine:"), telemetry.Changes, 0, "key.gone", `{"jti":"x"}`)
	config := servetest.WriteFile(t, "grantor.yaml", "issuer: https://auth.example.com\nhttp_listen: :1\nredis_prefix: 'mine:'\nkey_encryption_key_file: /nonexistent\n")
	t.Setenv("GRANTOR_REDIS", server.URL())
	t.Setenv("GRANTOR_LIMIT", "5")
	if got := listed(t, grantor(t, "audit -o json --config "+config)); got != "x" {
		t.Errorf("got %q, want x", got)
	}
	run(t, "audit", "--config", servetest.WriteFile(t, "grantor.yaml", "isuer: https://auth.example.com\n")).Exits(t, cli.ExitUsage, "isuer")
}

// TestAuditOfApply expects grantor apply to record exactly the changes that it makes.
func TestAuditOfApply(t *testing.T) {
	clitest.Isolate(t)
	server := redistest.New(t)
	kek, path := servetest.KEKFile(t), servetest.WriteFile(t, "clients.yaml", servetest.Manifest)
	apply := func(more string) {
		t.Helper()
		grantor(t, "apply -f "+path+" --redis "+server.URL()+" --key-encryption-key-file "+kek+" "+more)
	}
	events := func() string { return grantor(t, "audit -o json --redis "+server.URL()) }
	apply("--dry-run")
	if got := events(); got != "" {
		t.Errorf("a dry run is in the audit: %s", got)
	}
	apply("")
	first := events()
	if !strings.Contains(first, `"event":"client.created","by":"","peer":"","id":"background-service"`) || !strings.Contains(first, `"event":"resource.created"`) {
		t.Errorf("got %s, want the client and the resource", first)
	}
	apply("")
	if got := events(); got != first {
		t.Errorf("applied again, the audit has %s", got)
	}
	path = servetest.WriteFile(t, "clients.yaml", strings.ReplaceAll(servetest.Manifest, "Orders API", "Orders"))
	apply("--audit-entries 0")
	if got := events(); got != first {
		t.Errorf("without any entries, the audit has %s", got)
	}
}

// TestAuditPage checks the examples of docs/audit.md: their events have the attributes of such events, as printed, and
// their commands have existing flags.
func TestAuditPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	server := redistest.New(t)
	rows, commands := 0, 0
	for line := range strings.Lines(string(page)) {
		example, indented := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		command, isCommand := strings.CutPrefix(example, "bin/grantor audit ")
		fields := strings.Fields(example)
		switch {
		case !indented:
		case isCommand:
			commands++
			command = strings.ReplaceAll(strings.ReplaceAll(command, "'", ""), "--follow", "")
			grantor(t, "audit --redis "+server.URL()+" "+command)
		case strings.HasPrefix(example, "{"):
			rows++
			var event map[string]any
			if err := json.Unmarshal([]byte(example), &event); err != nil {
				t.Fatal(err)
			}
			expectAttributes(t, event["event"].(string), slices.DeleteFunc(slices.Collect(maps.Keys(event)), func(name string) bool {
				return name == "time" || name == "event"
			}))
		case len(fields) > 4 && strings.HasPrefix(example, "20"):
			rows++
			names := []string{"peer"}
			for _, match := range regexp.MustCompile(`(?: |^)([a-z_]+)=`).FindAllStringSubmatch(strings.Join(fields[4:], " "), -1) {
				names = append(names, match[1])
			}
			if strings.HasPrefix(fields[1], "token.") {
				names = append(names, "client_id", "identity") // an empty attribute is not printed, and those of secrets have no identity
			} else {
				names = append(names, "by")
			}
			if fields[1] == telemetry.EventTokenIssued {
				names = append(names, "cnf") // that of a bearer token is empty
			}
			expectAttributes(t, fields[1], names)
		}
	}
	if rows != 6 || commands != 4 {
		t.Errorf("the page has %d events and %d commands, want 6 and 4", rows, commands)
	}
}

// expectAttributes expects got to be all attributes of an event.
func expectAttributes(t *testing.T, name string, got []string) {
	t.Helper()
	for _, event := range telemetry.Events {
		if event.Name == name {
			want := slices.Sorted(slices.Values(event.Attributes))
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: got the attributes %v, want %v", name, got, want)
			}
			return
		}
	}
	t.Errorf("there is no event %s", name)
}
