package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestConfigPrint(t *testing.T) {
	const canary = "canary-secret"
	path := file(t, "grantor.yaml", "issuer: https://auth.example.com\nkey_encryption_key: "+canary+"\nmax_staleness: 10s\n")
	t.Setenv("GRANTOR_REDIS", "rediss://user:"+canary+"@redis.internal:6379/0?password="+canary)
	t.Setenv("GRANTOR_LOG_LEVEL", "debug")
	out := run(t, "config", "print", "--config", path, "--max-staleness", "20s", "-o", "json")
	out.works(t)
	var all []inForce
	if err := json.Unmarshal([]byte(out.out), &all); err != nil {
		t.Fatalf("%v in\n%s", err, out.out)
	}
	got := make(map[string]inForce)
	for _, one := range all {
		got[one.Setting] = one
	}
	for _, want := range []inForce{
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
	text.works(t)
	for _, printed := range []string{out.out, text.out} {
		if strings.Contains(printed, canary) {
			t.Errorf("a secret is shown:\n%s", printed)
		}
	}
	if !strings.Contains(text.out, "SETTING") || strings.Count(text.out, "\n") != len(all)+1 {
		t.Errorf("got\n%s\nwant a line for each of %d settings", text.out, len(all))
	}
}

func TestConfigCheck(t *testing.T) {
	for name, test := range map[string]struct {
		content, want string
		code          int
	}{
		"good":             {"issuer: https://auth.example.com\n", "is well-formed", 0},
		"no Redis":         {"issuer: https://auth.example.com\n", "\nredis is not in the file: it must come from GRANTOR_REDIS or --redis\n", 0},
		"no key":           {"issuer: https://auth.example.com\nredis: redis://localhost\n", ".yaml is well-formed.\nkey_encryption_key_file is not in the file: it must come from GRANTOR_KEY_ENCRYPTION_KEY_FILE or --key-encryption-key-file\n", 0},
		"misspelt":         {"issuer: https://auth.example.com\nlisten: x\n", ":2", exitUsage},
		"no issuer":        {"log_level: info\n", "issuer: is required", exitUsage},
		"a wrong value":    {"issuer: https://auth.example.com\nmax_staleness: soon\n", ":2", exitUsage},
		"half of a pair":   {"issuer: https://auth.example.com\ntls_cert_file: a\n", "tls-key-file", exitUsage},
		"not an issuer":    {"issuer: auth\n", "issuer: ", exitUsage},
		"not that of ours": {"- a\n", "", exitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			out := run(t, "config", "check", file(t, "grantor.yaml", test.content))
			if test.code == 0 {
				out.works(t)
				if !strings.Contains(out.out, test.want) {
					t.Errorf("got %q, want %q", out.out, test.want)
				}
				return
			}
			out.exits(t, test.code, test.want)
		})
	}
}

// TestConfigCheckComplete lists nothing that is missing where file and environment have what grantor serve needs.
func TestConfigCheckComplete(t *testing.T) {
	complete := func(content string) {
		t.Helper()
		path := file(t, "grantor.yaml", "issuer: https://auth.example.com\n"+content)
		if got, want := run(t, "config", "check", path).works(t), path+" is well-formed.\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	complete("dev: true\n")
	complete("redis: redis://localhost\nkey_encryption_key_file: kek\n")
	t.Setenv("GRANTOR_REDIS", "redis://localhost")
	t.Setenv("GRANTOR_KEY_ENCRYPTION_KEY", "x")
	complete("")
}
