package trust_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/trust"
)

// TestDirectories reads files below a directory, and tries to read others through it.
func TestDirectories(t *testing.T) {
	root := t.TempDir()
	inside, outside := filepath.Join(root, "in"), filepath.Join(root, "out")
	for _, directory := range []string{filepath.Join(inside, "..v1"), outside, filepath.Join(root, "inside")} {
		must.Succeed(t, os.MkdirAll(directory, 0o700))
	}
	for _, name := range []string{"in/..v1/token", "in/plain", "out/secret", "inside/secret"} {
		must.Succeed(t, os.WriteFile(filepath.Join(root, name), []byte("text"), 0o600))
	}
	for name, target := range map[string]string{
		"in/..data": "..v1", "in/token": "..data/token", "in/relative": "../out/secret", "in/absolute": filepath.Join(outside, "secret"),
		"in/elsewhere": outside, "in/loop": "loop", "linked": inside,
	} {
		must.Succeed(t, os.Symlink(target, filepath.Join(root, name)))
	}
	must.Succeed(t, syscall.Mkfifo(filepath.Join(inside, "pipe"), 0o600))
	for path, ok := range map[string]bool{
		"in/plain": true, "in/token": true, "in/..v1/token": true, "linked/token": true,
		"in/relative": false, "in/absolute": false, "in/elsewhere/secret": false, "in/loop": false, "in/pipe": false, "in": false, "in/none": false,
		"out/secret": false, "inside/secret": false, "in/../out/secret": false,
	} {
		data, err := trust.Directories{inside, filepath.Join(root, "linked")}.ReadFile(filepath.Join(root, filepath.FromSlash(path)), 100)
		if (err == nil) != ok || ok && string(data) != "text" {
			t.Errorf("%s: got %q, %v", path, data, err)
		}
	}
	if _, err := (trust.Directories{inside}).ReadFile(filepath.Join(inside, "plain"), 3); err == nil {
		t.Error("a file that is too large was read")
	}
	if _, err := (trust.Directories)(nil).ReadFile(filepath.Join(inside, "plain"), 100); err == nil {
		t.Error("without directories, a file was read")
	}
}

// TestCheckDirectories checks the files of issuers that are stored for replicas with directories.
func TestCheckDirectories(t *testing.T) {
	allowed := trust.Directories{"/run/spire", "/etc/trust"}
	for name, c := range map[string]struct {
		next, stored trust.Issuer
		field        string
	}{
		"no file":               {},
		"below":                 {next: trust.Issuer{CAFile: "/etc/trust/ca.pem", BearerTokenFile: "/run/spire/a/token"}},
		"a socket below":        {next: trust.Issuer{WorkloadAPI: "unix:///run/spire/agent.sock"}},
		"authorities":           {next: trust.Issuer{CAFile: "/etc/ca.pem"}, field: "ca_file"},
		"a token":               {next: trust.Issuer{CAFile: "/etc/trust/ca.pem", BearerTokenFile: "/etc/shadow"}, field: "bearer_token_file"},
		"a bundle":              {next: trust.Issuer{BundleFile: "/bundle"}, field: "bundle_file"},
		"a socket":              {next: trust.Issuer{WorkloadAPI: "unix:///run/agent.sock"}, field: "workload_api"},
		"a name that begins so": {next: trust.Issuer{CAFile: "/etc/trusted/ca.pem"}, field: "ca_file"},
		"stored before":         {next: trust.Issuer{CAFile: "/etc/ca.pem"}, stored: trust.Issuer{CAFile: "/etc/ca.pem"}},
		"stored elsewhere":      {next: trust.Issuer{CAFile: "/etc/ca.pem"}, stored: trust.Issuer{CAFile: "/etc/other.pem"}, field: "ca_file"},
	} {
		err := c.next.CheckDirectories(allowed, &c.stored)
		wrong, ok := errors.AsType[*trust.FieldError](err)
		if (err == nil) != (c.field == "") || err != nil && (!ok || wrong.Field != c.field) {
			t.Errorf("%s: got %v, want an error of %q", name, err, c.field)
		}
	}
}
