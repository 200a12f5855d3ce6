//go:build !linux

package freeport

import "net"

// reserve returns a port that was just free.
func reserve() (int, func(), error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port, func() {}, nil //nolint:forcetypeassert // it listens on TCP
}
