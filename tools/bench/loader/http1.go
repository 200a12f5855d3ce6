package loader

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// HTTP1 returns a load of HTTP/1.1. Its requests are complete, from the request line to the end of the body.
func HTTP1(address string, connections int, next func() []byte) *Load {
	return &Load{Address: address, Connections: connections, InFlight: 1, Next: next, exchange: exchangeHTTP1}
}

// exchangeHTTP1 makes one call after another.
func exchangeHTTP1(conn net.Conn, p *progress) error {
	var took []float64
	defer func() { p.keep(took) }()
	in := bufio.NewReader(conn)
	for request := p.next(); request != nil; request = p.next() {
		sent := time.Now()
		if _, err := conn.Write(request); err != nil {
			return err
		}
		if err := readResponse(in); err != nil {
			return err
		}
		p.record(&took, sent)
	}
	return nil
}

// readResponse reads a response, whose status must be 200 and whose length must be given.
func readResponse(in *bufio.Reader) error {
	status, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(status), "HTTP/1.1 200 ") {
		return fmt.Errorf("%w: got %q", errRefused, status)
	}
	length := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == len("\r\n") {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if length, err = strconv.Atoi(strings.TrimSpace(string(line[len(name):]))); err != nil {
				return err
			}
		}
	}
	if length < minAnswer {
		return fmt.Errorf("%w: the response has a length of %d", errRefused, length)
	}
	_, err = in.Discard(length)
	return err
}
