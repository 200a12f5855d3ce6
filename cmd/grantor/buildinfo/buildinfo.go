// Package buildinfo describes the running binary: its version, its revision and what built it.
package buildinfo

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is the version of a release, which the linker sets if the source is built outside its repository: -X
// github.com/grantorhq/grantor/cmd/grantor/buildinfo.version=v1.2.3. If it is empty, the version is that of Go's build
// information.
var version string

// Info describes a build.
type Info struct {
	Version string `json:"version"`
	// Revision is the commit, Time its time (RFC 3339) and Modified whether files differed from it. They are empty if
	// Go did not record them.
	Revision string `json:"revision,omitempty"`
	Time     string `json:"revision_time,omitempty"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Read returns the build of the running binary.
func Read() Info {
	b := Info{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				b.Revision = setting.Value
			case "vcs.time":
				b.Time = setting.Value
			case "vcs.modified":
				b.Modified = setting.Value == "true"
			}
		}
		if b.Version == "" {
			b.Version = info.Main.Version
		}
	}
	if b.Version == "" {
		b.Version = "(devel)" // as Go calls it
	}
	return b
}

// String returns the build in one line.
func (b *Info) String() string { return fmt.Sprintf("grantor %s %s %s", b.Version, b.Go, b.Platform) }
