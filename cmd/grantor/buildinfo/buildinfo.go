// Package buildinfo describes the running binary: its version, its revision and the record formats that it reads.
package buildinfo

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/redisstore"
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
	// Records are the formats of the records in Redis that the binary reads.
	Records []redisstore.Format `json:"records"`
}

// Read returns the build of the running binary.
func Read() Info {
	b := Info{
		Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Records: redisstore.Formats(),
	}
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

// Print prints the build for people.
func (b *Info) Print(out io.Writer) error {
	text := b.String() + "\n"
	if b.Revision != "" {
		text += "revision " + b.Revision + " of " + b.Time
		if b.Modified {
			text += ", with changes"
		}
		text += "\n"
	}
	var formats []string
	for _, f := range b.Records {
		one := fmt.Sprintf("%s %d", f.Record, f.Newest)
		if f.Oldest < f.Newest {
			one = fmt.Sprintf("%s %d to %d", f.Record, f.Oldest, f.Newest)
		}
		formats = append(formats, one)
	}
	_, err := fmt.Fprintf(out, "%srecord formats: %s\n", text, strings.Join(formats, ", "))
	return err
}

// NewCommand returns grantor version.
func NewCommand() *cobra.Command {
	var form string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version and what it was built with",
		Long: `Print the version, what it was built with, and the formats of the records in Redis that it reads. A release leaves records
of newer formats alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.CheckOutput(form); err != nil {
				return err
			}
			b := Read()
			if form == "text" {
				return b.Print(cmd.OutOrStdout())
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(b)
		},
	}
	cmd.Flags().StringVarP(&form, "output", "o", "text", "`form` of the output: text for people, json for scripts")
	return cmd
}
