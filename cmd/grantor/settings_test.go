package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/guard"
	"github.com/grantorhq/grantor/cmd/grantor/serve"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
)

// TestSettingsTable compares the tables in docs/settings.md with the settings that --help of the commands lists.
func TestSettingsTable(t *testing.T) {
	for name, declare := range map[string]func(*pflag.FlagSet) *settings.Set{
		"serve": new(serve.Settings).Declare, "guard": new(guard.Settings).Declare,
	} {
		flags := pflag.NewFlagSet(name, pflag.ContinueOnError)
		declare(flags)
		var table strings.Builder
		table.WriteString("| setting | default | what it is |\n|---|---|---|\n")
		flags.VisitAll(func(f *pflag.Flag) {
			_, usage := pflag.UnquoteUsage(f)
			value := f.DefValue
			if value == "" || value == "[]" {
				value = "none"
			}
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.Name, strings.Trim(value, "[]"), usage)
		})
		if !strings.Contains(page(t, "docs/settings.md"), table.String()) {
			t.Errorf("docs/settings.md lacks this table of grantor %s:\n%s", name, table.String())
		}
	}
}

// TestServiceLinks runs in a Kubernetes namespace with services whose names begin with grantor.
func TestServiceLinks(t *testing.T) {
	for _, service := range []string{"GRANTOR", "GRANTOR_OPS", "GRANTOR_SERVICE", "GRANTOR_HTTP_2"} {
		t.Run(service, func(t *testing.T) {
			for suffix, value := range map[string]string{
				"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "8080", "SERVICE_PORT_HTTP_API": "8080", "PORT": "tcp://10.0.0.1:8080",
				"PORT_8080_TCP": "tcp://10.0.0.1:8080", "PORT_8080_TCP_PROTO": "tcp", "PORT_8080_TCP_PORT": "8080", "PORT_8080_TCP_ADDR": "10.0.0.1",
			} {
				t.Setenv(service+"_"+suffix, value)
			}
			run(t, "version").Works(t)
			for _, name := range []string{"GRANTOR_HTTP_PORT", "GRANTOR_GRPC_SERVICE_PORT", service + "_PORTS", service + "_PORT_HTTP", service + "_SERVICE_HOSTS"} {
				t.Run(name, func(t *testing.T) {
					t.Setenv(name, "8080")
					run(t, "version").Exits(t, cli.ExitUsage, name+": there is no such setting")
				})
			}
		})
	}
}
