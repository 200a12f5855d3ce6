package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/servetest"
)

// shownSetting is a setting in the output of grantor config print.
type shownSetting struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
	From    string `json:"from"`
}

func TestConfigPrint(t *testing.T) {
	const canary = "canary-secret"
	path := servetest.WriteFile(t, "grantor.yaml", "issuer: https://auth.example.com\nkey_encryption_key: "+canary+"\nmax_staleness: 10s\n")
	t.Setenv("GRANTOR_REDIS", "rediss://user:"+canary+"@redis.internal:6379/0?password="+canary)
	t.Setenv("GRANTOR_LOG_LEVEL", "debug")
	out := run(t, "config", "print", "--config", path, "--max-staleness", "20s", "-o", "json")
	out.Works(t)
	var all []shownSetting
	if err := json.Unmarshal([]byte(out.Out), &all); err != nil {
		t.Fatalf("%v in\n%s", err, out.Out)
	}
	got := make(map[string]shownSetting)
	for _, one := range all {
		got[one.Setting] = one
	}
	for _, want := range []shownSetting{
		{"issuer", "https://auth.example.com", path + ":1"},
		{"max-staleness", "20s", "flag"},
		{"log-level", "debug", "GRANTOR_LOG_LEVEL"},
		{"http-listen", ":8080", "default"},
		{"config", path, "flag"},
		{"key-encryption-key", "(not shown)", path + ":2"},
		{"redis", "rediss://user:xxxxx@redis.internal:6379/0?password=xxxxx", "GRANTOR_REDIS"},
	} {
		if one := got[want.Setting]; one != want {
			t.Errorf("got %+v, want %+v", one, want)
		}
	}
	text := run(t, "config", "print", "--config", path)
	text.Works(t)
	for _, printed := range []string{out.Out, text.Out} {
		if strings.Contains(printed, canary) {
			t.Errorf("a secret is shown:\n%s", printed)
		}
	}
	if !strings.Contains(text.Out, "SETTING") || strings.Count(text.Out, "\n") != len(all)+1 {
		t.Errorf("got\n%s\nwant a line for each of %d settings", text.Out, len(all))
	}
}

func TestConfigCheck(t *testing.T) {
	for name, test := range map[string]struct {
		content, want string
		code          int
	}{
		"good":                        {"issuer: https://auth.example.com\n", "is well-formed", 0},
		"no Redis":                    {"issuer: https://auth.example.com\n", "\nredis is not in the file: it must come from GRANTOR_REDIS or --redis\n", 0},
		"no key":                      {"issuer: https://auth.example.com\nredis: redis://localhost\n", ".yaml is well-formed.\nkey_encryption_key_file is not in the file: it must come from GRANTOR_KEY_ENCRYPTION_KEY_FILE or --key-encryption-key-file\n", 0},
		"misspelt":                    {"issuer: https://auth.example.com\nlisten: x\n", ":2", cli.ExitUsage},
		"no issuer":                   {"log_level: info\n", "issuer: is required", cli.ExitUsage},
		"a wrong value":               {"issuer: https://auth.example.com\nmax_staleness: soon\n", ":2", cli.ExitUsage},
		"half of a pair":              {"issuer: https://auth.example.com\ntls_cert_file: a\n", "tls-key-file", cli.ExitUsage},
		"not an issuer":               {"issuer: auth\n", "issuer: ", cli.ExitUsage},
		"development mode on a Redis": {"dev: true\nredis: redis://localhost\n", "dev: ", cli.ExitUsage},
		"not that of ours":            {"- a\n", "", cli.ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			out := run(t, "config", "check", servetest.WriteFile(t, "grantor.yaml", test.content))
			if test.code == 0 {
				out.Works(t)
				if !strings.Contains(out.Out, test.want) {
					t.Errorf("got %q, want %q", out.Out, test.want)
				}
				return
			}
			out.Exits(t, test.code, test.want)
		})
	}
}

// TestConfigCheckComplete expects no missing setting if file and environment have what grantor serve needs.
func TestConfigCheckComplete(t *testing.T) {
	complete := func(content string) {
		t.Helper()
		path := servetest.WriteFile(t, "grantor.yaml", "issuer: https://auth.example.com\n"+content)
		if got, want := run(t, "config", "check", path).Works(t), path+" is well-formed.\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	complete("dev: true\n")
	complete("redis: redis://localhost\nkey_encryption_key_file: kek\n")
	t.Setenv("GRANTOR_REDIS", "redis://localhost")
	t.Setenv("GRANTOR_KEY_ENCRYPTION_KEY", "x")
	complete("")
}
