package migrate_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/migrate"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/service/must"
)

// repeated returns n items of a list, which format numbers.
func repeated(n int, format string) string {
	var items strings.Builder
	for i := range n {
		if i > 0 {
			items.WriteByte(',')
		}
		_, _ = fmt.Fprintf(&items, format, i)
	}
	return items.String()
}

// nested returns a JSON value inside lists and objects, each in the other.
func nested(levels int, value string) string {
	return strings.Repeat(`[{"a":`, levels/2) + value + strings.Repeat("}]", levels/2)
}

const (
	hydraClient           = `"grant_types": ["client_credentials"], "audience": ["https://a"], "scope": "api"`
	openIddictApplication = `"Permissions": ["ept:token", "gt:client_credentials"]`
)

// allocated returns how many bytes a conversion allocates. It counts what is read again at each level, and every copy.
func allocated(server, export string) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	migrate.Convert(server, []byte(export), "")
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestImportGrowth converts exports of two sizes. The work must grow as the size does.
func TestImportGrowth(t *testing.T) {
	text := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for name, c := range map[string]struct {
		server string
		export func(n int) string
	}{
		"a text deep inside": {"hydra", func(n int) string { return `[{"id": "a", ` + hydraClient + `, "jwks": ` + nested(90, text(n)) + `}]` }},
		"empty values deep inside": {"openiddict", func(n int) string {
			return `[{"ClientId": "a", ` + openIddictApplication + `, "Properties": ` + nested(90, "["+strings.Repeat(`"",`, n/3)+"null]") + `}]`
		}},
		"lists in lists": {"openiddict", func(n int) string {
			return `{"applications": [], "other": [` + strings.Repeat(nested(8, "null")+",", n/40) + `null]}`
		}},
		"JSON in a text": {"openiddict", func(n int) string {
			return `[{"ClientId": "a", ` + openIddictApplication + `, "Settings": "` + strings.ReplaceAll(nested(90, "["+strings.Repeat("null,", n/5)+"null]"), `"`, `\"`) + `"}]`
		}},
		"rows": {"hydra", func(n int) string { return "[" + repeated(n/100, `{"id": "a%d", `+hydraClient+"}") + "]" }},
		"clients of all scopes": {"hydra", func(n int) string {
			scopes := strings.ReplaceAll(repeated(1000, "s%d"), ",", " ")
			return "[" + repeated(n/8000, `{"id": "a%d", "grant_types": ["client_credentials"], "scope": "`+scopes+`", "audience": [`+repeated(200, `"https://%d"`)+`]}`) + "]"
		}},
	} {
		small, large := c.export(100_000), c.export(800_000)
		few, many := allocated(c.server, small), allocated(c.server, large)
		if grown := float64(many) / float64(few) / (float64(len(large)) / float64(len(small))); grown > 2 {
			t.Errorf("%s: %d bytes take %d, %d bytes %d: %.1f times as much for each", name, len(small), few, len(large), many, grown)
		}
	}
	// The text is 90 levels deep; reading it again at each of them would take it 90 times or more.
	deep := `[{"id": "a", ` + hydraClient + `, "jwks": ` + nested(90, text(100_000)) + `}]`
	if times := allocated("hydra", deep) / 100_000; times > 45 {
		t.Errorf("a text of 100 kB takes %d times as many bytes", times)
	}
}

// TestImportBounds refuses what is beyond any real export.
func TestImportBounds(t *testing.T) {
	const deep = "export.json:1:%d: lists and objects are nested more than 100 levels deep"
	for name, c := range map[string]struct{ server, export, want string }{
		"depth":           {"hydra", nested(102, "1"), fmt.Sprintf(deep, 301)},
		"depth in a text": {"openiddict", `[{"ClientId": "a", "Permissions": "` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `"}]`, "1:35: Permissions: lists and objects are nested"},
		"names":           {"openiddict", "[{" + repeated(1001, `"a%d":1`) + "}]", "export.json:1:2: there are more than 1000 names"},
		"a list":          {"openiddict", `[{"ClientId": "a", "Permissions": [` + repeated(1001, `"%d"`) + `]}]`, "Permissions: the list has more than 1000 entries"},
		"a list in a text": {"hydra", `[{"client_id": "a", "grant_types": "client_credentials|` + strings.Repeat("a|", 1000) + `"}]`,
			"grant_types: the list has more than 1000 entries"},
		"scopes": {"hydra", `[{"client_id": "a", "grant_types": ["client_credentials"], "scope": "` + strings.Repeat("a ", 1001) + `"}]`, "there are more than 1000 scopes"},
		"rows":   {"hydra", "[" + strings.Repeat("{},", 100_000) + "{}]", "export.json:1:1: the list has more than 100000 entries"},
	} {
		if _, _, err := migrate.Convert(c.server, []byte(c.export), ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, _, err := migrate.Convert("hydra", []byte(nested(100, "1")), ""); err == nil || strings.Contains(err.Error(), "levels") {
		t.Errorf("100 levels: got %v", err)
	}
	if _, _, err := runImport(t, "hydra", "/dev/zero"); err == nil || !strings.Contains(err.Error(), "/dev/zero has more than 67108864 bytes") {
		t.Errorf("a device without an end: got %v", err)
	}
}

// TestImportHalfWritten expects no file where there is no room for the whole of it: the process of TestImportWithoutRoom
// may write files of 10 kB only.
func TestImportHalfWritten(t *testing.T) {
	dir := os.Getenv("WITHOUT_ROOM")
	if dir == "" {
		t.Skip("TestImportWithoutRoom runs it in another process, whose files it limits")
	}
	rows := servetest.WriteFile(t, "hydra.json", "["+repeated(1000, `{"id": "a%d", `+hydraClient+"}")+"]")
	limit := syscall.Rlimit{Cur: 10_000, Max: 10_000}
	must.Succeed(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit))
	_, _, err := runImport(t, "hydra", rows, "--output="+filepath.Join(dir, "clients.yaml"))
	if err == nil || !strings.Contains(err.Error(), "file too large") {
		t.Errorf("got %v", err)
	}
}

func TestImportWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	process := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestImportHalfWritten$")
	process.Env = append(os.Environ(), "WITHOUT_ROOM="+dir)
	if out, err := process.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if left := must.Get(os.ReadDir(dir)); len(left) > 0 {
		t.Errorf("%v is there", left)
	}
}
