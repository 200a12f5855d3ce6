package poll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"gocloud.dev/gcerrors"
)

// maxAnswer bounds the body of an answer, in bytes. Key Vault's secrets have at most 25 KiB, and those of HashiCorp Vault
// at most 1 MiB unless its operator raises that; the clients of both would read any amount.
const maxAnswer = 1 << 20

// Limit returns a transport with which the bodies of answers end with an error after 1 MiB.
func Limit(transport http.RoundTripper) http.RoundTripper { return limited{transport} }

type limited struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (l limited) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = http.MaxBytesReader(nil, response.Body, maxAnswer)
	return response, nil
}

// Unreachable returns the error of a server that could not be asked, or whose answer cannot be read. It quotes what
// happened to the connection and nothing of the answer, which errors of net/http and of decoders do quote.
func Unreachable(err error) error {
	if text := connectionFailure(err); text != "" {
		return &Error{strings.Join(strings.Fields(text), " "), gcerrors.Unknown}
	}
	return Unreadable(err)
}

// Unreadable returns the error of an answer that has another form than the store's. The cause is not quoted.
func Unreadable(cause error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](cause); ok {
		return &Error{fmt.Sprintf("the server's answer has more than %d bytes", maxAnswer), gcerrors.Unknown}
	}
	return &Error{"the server's answer cannot be understood", gcerrors.Unknown}
}

// connectionFailure returns what happened to a connection, or "" if the error is another one.
func connectionFailure(err error) string {
	operation, failed := errors.AsType[*net.OpError](err)
	certificate, refused := errors.AsType[*tls.CertificateVerificationError](err)
	record, plain := errors.AsType[tls.RecordHeaderError](err)
	timeout, timed := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %v", readTimeout)
	case errors.Is(err, context.Canceled):
		return "the variable is being closed"
	case refused:
		return certificate.Error()
	case plain:
		return record.Error()
	case errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not speak TLS"
	case failed:
		return operation.Error()
	case timed && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	}
	return ""
}
