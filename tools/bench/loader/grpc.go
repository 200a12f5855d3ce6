package loader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// maxRequest bounds a request in bytes. The calls in flight on a connection then fit into the window of flow control that
// each server has open, of which this client keeps no account: of 64 KiB, a server reopens what it has read at the latest when
// that is a quarter.
const maxRequest = 4 << 10

// GRPC returns a load of unary gRPC calls of a method, such as /grantor.v1.TokenService/IssueToken. Its requests are from
// [Request].
func GRPC(address, method string, connections, inFlight int, next func() []byte) *Load {
	return &Load{Address: address, Connections: connections, InFlight: inFlight, Next: next, exchange: func(conn net.Conn, p *progress) error {
		return newGRPCConn(conn, p, address, method).run()
	}}
}

// Request returns an encoded message with the prefix that it has on the wire.
func Request(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...) //nolint:gosec // at most maxRequest
}

// grpcConn is a connection of HTTP/2 with gRPC calls. One goroutine sends and receives: it writes what is to be sent when
// it has read everything that was received.
type grpcConn struct {
	*progress

	in     *bufio.Reader
	out    *bufio.Writer
	framer *http2.Framer
	// first is the header block of the first call, which enters its fields in the server's table, and later the block that
	// refers to them.
	first, later []byte
	decoder      *hpack.Decoder
	// status and message are those of the block that was decoded last.
	status, message string

	calls map[uint32]*call
	id    uint32
	// unacknowledged is the number of bytes received since the window of flow control was last opened.
	unacknowledged uint32
	took           []float64
}

// call is a call in flight.
type call struct {
	sent  time.Time
	bytes int
}

// window is the number of bytes that the server may send before this client opens the window again.
const window = 1 << 30

func newGRPCConn(conn net.Conn, p *progress, address, method string) *grpcConn {
	const buffer = 32 << 10
	c := &grpcConn{progress: p, in: bufio.NewReaderSize(conn, buffer), out: bufio.NewWriterSize(conn, buffer), calls: map[uint32]*call{}, id: 1}
	c.framer = http2.NewFramer(c.out, c.in)
	c.framer.SetReuseFrames()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, into := range []*[]byte{&c.first, &c.later} {
		block.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", address},
			{"content-type", "application/grpc"}, {"user-agent", "loader"}, {"te", "trailers"},
		} {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}) // a buffer accepts each write
		}
		*into = bytes.Clone(block.Bytes())
	}
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			c.status = f.Value
		case "grpc-message":
			c.message = f.Value
		}
	})
	return c
}

// run makes calls until the load ends and all of them are answered.
func (c *grpcConn) run() error {
	defer func() { c.keep(c.took) }()
	if _, err := c.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := c.framer.WriteSettings(); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, window); err != nil {
		return err
	}
	for range c.InFlight {
		if err := c.send(); err != nil {
			return err
		}
	}
	for len(c.calls) > 0 {
		if c.in.Buffered() == 0 {
			if err := c.out.Flush(); err != nil {
				return err
			}
		}
		frame, err := c.framer.ReadFrame()
		if err == nil {
			err = c.receive(frame)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// send begins the next call, if there is one.
func (c *grpcConn) send() error {
	request := c.next()
	if request == nil {
		return nil
	}
	if len(request) > maxRequest {
		return fmt.Errorf("a request has %d bytes, more than %d", len(request), maxRequest)
	}
	block := c.later
	if c.id == 1 {
		block = c.first
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, BlockFragment: block, EndHeaders: true}); err != nil {
		return err
	}
	c.calls[c.id] = &call{sent: time.Now()}
	c.id += 2
	return c.framer.WriteData(c.id-2, true, request)
}

// receive processes a frame.
func (c *grpcConn) receive(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.receiveData(f)
	case *http2.HeadersFrame:
		return c.receiveHeaders(f)
	case *http2.SettingsFrame:
		if !f.IsAck() {
			return c.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
	default:
		return fmt.Errorf("%w: got the frame %s", errRefused, f)
	}
	return nil
}

// receiveData counts the bytes of a response.
func (c *grpcConn) receiveData(f *http2.DataFrame) error {
	if call := c.calls[f.StreamID]; call != nil {
		call.bytes += len(f.Data())
	}
	if c.unacknowledged += f.Length; c.unacknowledged < window/2 {
		return nil
	}
	opened := c.unacknowledged
	c.unacknowledged = 0
	return c.framer.WriteWindowUpdate(0, opened)
}

// receiveHeaders decodes a header block. The one that ends a call must have the status OK. Another call follows it.
func (c *grpcConn) receiveHeaders(f *http2.HeadersFrame) error {
	c.status, c.message = "", ""
	if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
		return err
	}
	if !f.HeadersEnded() {
		return fmt.Errorf("%w: a header block has more than one frame", errRefused)
	}
	if err := c.decoder.Close(); err != nil {
		return err
	}
	if !f.StreamEnded() {
		return nil
	}
	ended := c.calls[f.StreamID]
	if ended == nil || c.status != "0" || ended.bytes < minAnswer {
		return fmt.Errorf("%w: got the status %q, %q", errRefused, c.status, c.message)
	}
	delete(c.calls, f.StreamID)
	c.record(&c.took, ended.sent)
	return c.send()
}
