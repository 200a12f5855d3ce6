package freeport

import (
	"fmt"
	"os"
	"syscall"
)

// reserve binds a socket that never listens. The kernel assigns a bound port neither to connect nor to bind with port 0. It
// lets another socket bind it by number if both sockets set SO_REUSEADDR and none listens.
func reserve() (int, func(), error) {
	// One socket of IPv6 covers IPv4, too.
	port, release, err := bind(syscall.AF_INET6, &syscall.SockaddrInet6{})
	if err != nil { // the kernel has no IPv6
		port, release, err = bind(syscall.AF_INET, &syscall.SockaddrInet4{})
	}
	if err != nil {
		return 0, nil, fmt.Errorf("reserve a port: %w", err)
	}
	return port, release, nil
}

// bind binds a socket to a port of the kernel's choice. The address is the unspecified one.
func bind(family int, address syscall.Sockaddr) (port int, release func(), err error) {
	socket, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	release = func() { _ = syscall.Close(socket) }
	defer func() {
		if err != nil {
			release()
		}
	}()
	if family == syscall.AF_INET6 {
		if err := syscall.SetsockoptInt(socket, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY, 0); err != nil {
			return 0, nil, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := syscall.SetsockoptInt(socket, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(socket, address); err != nil {
		return 0, nil, os.NewSyscallError("bind", err)
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		return 0, nil, os.NewSyscallError("getsockname", err)
	}
	switch name := name.(type) {
	case *syscall.SockaddrInet6:
		return name.Port, release, nil
	case *syscall.SockaddrInet4:
		return name.Port, release, nil
	default:
		return 0, nil, fmt.Errorf("the socket has an address of type %T", name)
	}
}
