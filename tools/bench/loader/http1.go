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

// readResponse reads a response, whose status must be 200. Its body has a length or is in chunks.
func readResponse(in *bufio.Reader) error {
	status, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(status), "HTTP/1.1 200 ") {
		return fmt.Errorf("%w: got %q", errRefused, status)
	}
	length, chunked := 0, false
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == len("\r\n") {
			break
		}
		name, value, _ := strings.Cut(string(line), ":")
		switch {
		case strings.EqualFold(name, "content-length"):
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		case strings.EqualFold(name, "transfer-encoding"):
			chunked = strings.EqualFold(strings.TrimSpace(value), "chunked")
		}
	}
	if chunked {
		length, err = discardChunks(in)
	} else {
		_, err = in.Discard(length)
	}
	if err == nil && length < minAnswer {
		err = fmt.Errorf("%w: the response has a length of %d", errRefused, length)
	}
	return err
}

// discardChunks reads the chunks of a body without trailers (RFC 9112 §7.1) and returns its length.
func discardChunks(in *bufio.Reader) (int, error) {
	for length := 0; ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		size, err := strconv.ParseUint(strings.TrimSpace(string(line)), 16, 31)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errRefused, err)
		}
		if _, err := in.Discard(int(size) + len("\r\n")); err != nil {
			return 0, err
		}
		if size == 0 {
			return length, nil
		}
		length += int(size)
	}
}
