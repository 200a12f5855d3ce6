package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

// TestVersion has the command, the health of a server, its metrics and its log tell one and the same build.
func TestVersion(t *testing.T) {
	var b build
	if err := json.Unmarshal([]byte(run(t, "version", "-o", "json").works(t)), &b); err != nil {
		t.Fatal(err)
	}
	if b.Version == "" || b.Go != runtime.Version() || b.Platform != runtime.GOOS+"/"+runtime.GOARCH || len(b.Records) != 3 {
		t.Errorf("got %+v", b)
	}
	if got := run(t, "version").works(t); !strings.HasPrefix(got, b.String()+"\n") {
		t.Errorf("got %q, want %q first", got, b.String())
	}
	run(t, "version", "-o", "xml").exits(t, 2, "output: ")
	r := serveDev(t)
	ops := "http://" + r.ports.ops.Addr().String()
	if _, got := get(t, ops+"/healthz"); got != "ok\n"+b.String()+"\n" {
		t.Errorf("healthz: got %q", got)
	}
	if _, got := get(t, ops+"/metrics"); !strings.Contains(got, "grantor_build_info{") || !strings.Contains(got, `version="`+b.Version+`"`) {
		t.Errorf("the metrics lack grantor_build_info with the version")
	}
	if want := `"version":"` + b.Version + `"`; !strings.Contains(r.log.String(), want) {
		t.Errorf("the log lacks %s", want)
	}
}

func TestVersionInWords(t *testing.T) {
	b := thisBuild()
	b.Version, b.Go, b.Platform, b.Revision, b.Time, b.Modified = "v1.2.3", "go1.26", "linux/amd64", "abc", "2026-01-02T03:04:05Z", true
	b.Records = b.Records[:1]
	b.Records[0].Newest = 2
	var out strings.Builder
	if err := b.print(&out); err != nil {
		t.Fatal(err)
	}
	const want = "grantor v1.2.3 go1.26 linux/amd64\nrevision abc of 2026-01-02T03:04:05Z, with changes\nrecord formats: client 1 to 2\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
