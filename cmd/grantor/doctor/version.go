package doctor

import (
	"fmt"
	"slices"
)

// release is a version of Redis or Valkey: major, minor, patch.
type release [3]int

// parseVersion parses "7.2.5". A version that it cannot parse is zero, which is older than every other.
func parseVersion(text string) (v release) {
	_, _ = fmt.Sscanf(text, "%d.%d.%d", &v[0], &v[1], &v[2])
	return v
}

func (v release) String() string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

// before reports whether v is older than other.
func (v release) before(other release) bool { return slices.Compare(v[:], other[:]) < 0 }

// flaw is a vulnerability: its name and, for each branch that was fixed, the first release with the fix.
type flaw struct {
	cve   string
	fixed []release
}

// affects reports whether a release has the flaw: it precedes the fix of its branch, or its branch was not fixed and is
// older than the newest that was.
func (f *flaw) affects(v release) bool {
	newest := release{}
	for _, fixed := range f.fixed {
		if fixed[0] == v[0] && fixed[1] == v[1] {
			return v.before(fixed)
		}
		if newest.before(fixed) {
			newest = fixed
		}
	}
	return v.before(newest)
}

// The flaws that matter most where many services reach a Redis: code run in the server, or its end, by a script or without
// a password. The newest is the last. The versions are those of the projects' release notes and of the CVE records.
var (
	redisFlaws = []flaw{
		{"CVE-2024-31449", []release{{6, 2, 16}, {7, 2, 6}, {7, 4, 1}}},                                                           // scripts run code
		{"CVE-2025-21605", []release{{6, 2, 18}, {7, 2, 8}, {7, 4, 3}}},                                                           // a stranger takes all memory
		{"CVE-2025-49844", []release{{6, 2, 20}, {7, 2, 11}, {7, 4, 6}, {8, 0, 4}, {8, 2, 2}}},                                    // scripts run code
		{"CVE-2026-81934", []release{{6, 2, 24}, {7, 2, 16}, {7, 4, 11}, {8, 2, 9}, {8, 4, 6}, {8, 6, 6}, {8, 8, 2}, {8, 10, 1}}}, // a stranger runs code, over TLS
	}
	valkeyFlaws = []flaw{
		{"CVE-2025-49844", []release{{7, 2, 11}, {8, 0, 6}, {8, 1, 4}}},                        // scripts run code
		{"CVE-2026-23479", []release{{7, 2, 13}, {8, 0, 9}, {8, 1, 7}, {9, 0, 4}}},             // a client runs code
		{"CVE-2026-56684", []release{{7, 2, 14}, {8, 0, 10}, {8, 1, 9}, {9, 0, 5}, {9, 1, 1}}}, // a client runs code, over TLS
	}
)

// software returns the name and the version of the server, from its INFO. Valkey also reports the version of Redis that
// it is compatible with.
func software(info map[string]string) (name string, v release, known []flaw) {
	if valkey := info["valkey_version"]; valkey != "" {
		return "Valkey", parseVersion(valkey), valkeyFlaws
	}
	return "Redis", parseVersion(info["redis_version"]), redisFlaws
}

// flaws returns the names of the flaws of a release.
func flaws(v release, known []flaw) []string {
	var found []string
	for _, f := range known {
		if f.affects(v) {
			found = append(found, f.cve)
		}
	}
	return found
}

// fixes lists the later releases that have the newest fix.
func fixes(v release, known []flaw) []string {
	var later []string
	for _, fixed := range known[len(known)-1].fixed {
		if v.before(fixed) {
			later = append(later, fixed.String())
		}
	}
	return later
}
