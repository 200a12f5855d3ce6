package cli

import (
	"fmt"
	"io"
	"os"
)

// MaxSmallFile bounds a file with a secret or a key, in bytes.
const MaxSmallFile = 1 << 20

// ReadFile reads a file of at most limit bytes. A device or a FIFO may have any number of them, whatever its size is said
// to be.
func ReadFile(path string, limit int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return ReadAll(file, path, limit)
}

// SizeError reports that a file has more bytes than its limit.
type SizeError struct {
	Name  string
	Limit int64
}

// Error names the file and its limit.
func (e *SizeError) Error() string { return fmt.Sprintf("%s has more than %d bytes", e.Name, e.Limit) }

// ReadAll reads r, which has at most limit bytes, to its end. The error for more names it.
func ReadAll(r io.Reader, name string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, &SizeError{name, limit}
	}
	return data, nil
}
