// Package version prints the build of the binary and the record formats that it reads.
package version

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/service/redisstore"
)

// Info is the build of the binary and what it reads.
type Info struct {
	buildinfo.Info
	// Records are the formats of the records in Redis that the binary reads.
	Records []redisstore.Format `json:"records"`
}

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
			b := Info{buildinfo.Read(), redisstore.Formats()}
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
