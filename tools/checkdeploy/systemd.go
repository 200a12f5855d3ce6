package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxExposure is the maximum exposure level that systemd-analyze may assign to the unit, in tenths: 15 is level 1.5 of 10.
const maxExposure = "15"

// systemd verifies a copy of the unit that starts binary, which need not be installed.
func systemd(unit, binary string) error {
	data, err := os.ReadFile(unit)
	if err != nil {
		return err
	}
	const installed = "ExecStart=/usr/local/bin/grantor "
	if !strings.Contains(string(data), installed) {
		return errors.New("the unit does not start /usr/local/bin/grantor")
	}
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	copied := filepath.Join(dir, filepath.Base(unit))
	content := strings.ReplaceAll(string(data), "/usr/local/bin/grantor ", binary+" ")
	if err := os.WriteFile(copied, []byte(content), 0o600); err != nil { //nolint:gosec // in a temporary folder
		return err
	}
	for _, args := range [][]string{
		{"verify", "--man=no", copied},
		{"security", "--offline=true", "--no-pager", "--threshold=" + maxExposure, copied},
	} {
		out, err := exec.CommandContext(context.Background(), "systemd-analyze", args...).CombinedOutput() //nolint:gosec // fixed arguments and the copy
		if err != nil {
			return fmt.Errorf("systemd-analyze %s: %w\n%s", args[0], err, out)
		}
		// verify ignores unknown keys and reports them.
		if args[0] == "verify" && len(out) > 0 {
			return fmt.Errorf("systemd-analyze verify: %s", out)
		}
	}
	return nil
}
