package rest_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/tokentest"
)

// TestGRPCPaths sends paths that no gRPC library sends. Authorization rules are keyed by path, so a path that resembles
// a method's must reach no handler.
func TestGRPCPaths(t *testing.T) {
	issuer := newIssuer(t)
	const path = "/grantor.v1.TokenService/IssueToken"
	if status, messages := call(t, issuer, path); status != "0" || messages == 0 {
		t.Fatalf("%s: got grpc-status %s and %d bytes, want an answer", path, status, messages)
	}
	for _, path := range []string{
		"grantor.v1.TokenService/IssueToken", "//grantor.v1.TokenService/IssueToken", "/grantor.v1.TokenService//IssueToken",
		"/grantor.v1.TokenService/IssueToken/", "/grantor.v1.tokenservice/IssueToken", "/grantor.v1.TokenService/issueToken",
		"/grantor.v1.TokenService%2FIssueToken", "/./grantor.v1.TokenService/IssueToken", "/grantor.v1.TokenService/IssueToken?a=b",
		"/x/grantor.v1.TokenService/IssueToken", "http://a/grantor.v1.TokenService/IssueToken", "IssueToken", "/IssueToken", "/", "*",
	} {
		t.Run(path, func(t *testing.T) {
			if status, messages := call(t, issuer, path); status == "0" || messages != 0 {
				t.Errorf("got grpc-status %q and %d bytes, want a refusal without a message", status, messages)
			}
		})
	}
}

// call sends a valid token request to the path, frame by frame (RFC 9113). It returns the gRPC status, which is empty
// if the stream ended without one, and the number of bytes of messages received.
func call(t *testing.T, issuer *tokentest.Issuer, path string) (status string, messages int) {
	t.Helper()
	conn, err := net.Dial("tcp", issuer.GRPCTarget)
	must.Succeed(t, err)
	defer func() { _ = conn.Close() }()
	must.Succeed(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	must.Succeed(t, err)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must.Succeed(t, framer.WriteSettings())
	const stream = 1
	must.Succeed(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headerBlock(t, path), EndHeaders: true}))
	must.Succeed(t, framer.WriteData(stream, true, message(t)))
	for {
		frame, err := framer.ReadFrame()
		must.Succeed(t, err)
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				must.Succeed(t, framer.WriteSettingsAck())
			}
		case *http2.DataFrame:
			messages += len(f.Data())
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				if field.Name == "grpc-status" {
					status = field.Value
				}
			}
			if f.StreamEnded() {
				return status, messages
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return status, messages
		}
	}
}

func headerBlock(t *testing.T, path string) []byte {
	t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "issuer.test"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		must.Succeed(t, encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}))
	}
	return block.Bytes()
}

// message returns a valid token request in gRPC framing: one byte for compression, four for the length, the message.
func message(t *testing.T) []byte {
	t.Helper()
	data, err := proto.Marshal(&grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "svc", ClientSecret: secret})
	must.Succeed(t, err)
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
}
