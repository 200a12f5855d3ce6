package trust

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Directories are the directories below which the files are read that stored issuers name. An administrator of the API
// chooses those names and the server to which the content of one is sent: without this bound, that administrator could
// have any file of the host sent.
type Directories []string

// ReadFile returns the content of a file of at most limit bytes. Links that stay below the directory are followed:
// Kubernetes replaces the files of a volume by replacing a link to their directory.
func (d Directories) ReadFile(path string, limit int64) ([]byte, error) {
	for _, directory := range d {
		name, ok := below(directory, path)
		if !ok {
			continue
		}
		data, err := readBelow(directory, name, limit)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		return data, nil
	}
	return nil, outsideError(path)
}

// Cover reports whether the path is below one of the directories, wherever its links lead.
func (d Directories) Cover(path string) bool {
	return slices.ContainsFunc(d, func(directory string) bool { _, ok := below(directory, path); return ok })
}

// below returns the name of a path in a directory. ok is false if it is not below the directory.
func below(directory, path string) (name string, ok bool) {
	name, err := filepath.Rel(directory, path)
	return name, err == nil && filepath.IsLocal(name)
}

// Contain returns an error unless the path is below one of the directories, also where its links lead. It is for
// sockets, which are connected to and not read.
func (d Directories) Contain(path string) error {
	final, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	for _, directory := range d {
		resolved, err := filepath.EvalSymlinks(directory)
		if err != nil {
			continue
		}
		_, named := below(directory, path)
		if _, led := below(resolved, final); named && led {
			return nil
		}
	}
	return outsideError(path)
}

// outsideError reports a path that is below none of the directories.
func outsideError(path string) error {
	return fmt.Errorf("%s is below no directory that trust-directories names", path)
}

// readBelow reads a file below a directory.
func readBelow(directory, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(directory)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	// A pipe would keep the reader waiting when it is opened.
	switch info, err := root.Stat(name); {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, err
}
