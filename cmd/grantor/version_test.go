package main

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	"github.com/grantorhq/grantor/cmd/grantor/version"
)

// TestVersion expects the command, the health endpoint of a server, its metrics and its log to report the same build.
func TestVersion(t *testing.T) {
	var b version.Info
	if err := json.Unmarshal([]byte(run(t, "version", "-o", "json").Works(t)), &b); err != nil {
		t.Fatal(err)
	}
	if b.Version == "" || b.Go != runtime.Version() || b.Platform != runtime.GOOS+"/"+runtime.GOARCH || len(b.Records) != 4 {
		t.Errorf("got %+v", b)
	}
	if got := run(t, "version").Works(t); !strings.HasPrefix(got, b.String()+"\n") {
		t.Errorf("got %q, want %q first", got, b.String())
	}
	run(t, "version", "-o", "xml").Exits(t, 2, "output: ")
	r := servetest.Dev(t)
	ops := "http://" + r.OpsAddr()
	if _, got := servetest.Get(t, ops+"/healthz"); got != "ok\n"+b.String()+"\n" {
		t.Errorf("healthz: got %q", got)
	}
	if _, got := servetest.Get(t, ops+"/metrics"); !strings.Contains(got, "grantor_build_info{") || !strings.Contains(got, `version="`+b.Version+`"`) {
		t.Errorf("the metrics lack grantor_build_info with the version")
	}
	if want := `"version":"` + b.Version + `"`; !strings.Contains(r.Log.String(), want) {
		t.Errorf("the log lacks %s", want)
	}
}
