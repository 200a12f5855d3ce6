package trust_test

import (
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
