package version_test

import (
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/version"
	"github.com/grantorhq/grantor/service/redisstore"
)

func TestVersionInWords(t *testing.T) {
	b := version.Info{Info: buildinfo.Read(), Records: redisstore.Formats()}
	b.Version, b.Go, b.Platform, b.Revision, b.Time, b.Modified = "v1.2.3", "go1.26", "linux/amd64", "abc", "2026-01-02T03:04:05Z", true
	b.Records = b.Records[:1]
	b.Records[0].Newest = 2
	var out strings.Builder
	if err := b.Print(&out); err != nil {
		t.Fatal(err)
	}
	const want = "grantor v1.2.3 go1.26 linux/amd64\nrevision abc of 2026-01-02T03:04:05Z, with changes\nrecord formats: client 1 to 2\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
