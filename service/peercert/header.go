package peercert

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/grantorhq/grantor/service/certificate"
)

// Form is the form in which a header has a certificate.
type Form string

// The forms of headers.
const (
	// RFC9440 is the Client-Cert header of RFC 9440: the DER in base64 between colons. A second header, whose name ends in
	// -Chain, has the other certificates of the chain.
	RFC9440 Form = "rfc9440"
	// XFCC is the header x-forwarded-client-cert of Envoy and of the meshes that are made of it.
	XFCC Form = "xfcc"
	// EscapedPEM is PEM with percent-encoding: $ssl_client_escaped_cert of nginx, X-Amzn-Mtls-Clientcert of AWS.
	EscapedPEM Form = "escaped-pem"
	// Base64DER is DER in base64: ssl_c_der,base64 of HAProxy.
	Base64DER Form = "base64-der"
)

// Forms returns the names of all forms.
func Forms() []string {
	return []string{string(RFC9440), string(XFCC), string(EscapedPEM), string(Base64DER)}
}

// maxHeader is the maximum size of the headers with a chain, in bytes. It is less than the 16 KiB that all headers of a request
// may have, so that the answer to a larger one can say what is wrong.
const maxHeader = 12 << 10

// Header is a header with a client certificate.
type Header struct {
	Name string
	Form Form
}

// Errors about a header quote no part of it.
var (
	errTwice    = errors.New("the header was sent twice")
	errTooLong  = fmt.Errorf("the header has more than %d bytes", maxHeader)
	errEncoding = errors.New("the header is not encoded in its form")
)

// chainSuffix is appended to the name of a header of [RFC9440].
const chainSuffix = "-Chain"

// parse returns the certificates in the header; none if it is absent or empty, as proxies send it for a client without a
// certificate. values returns all values of a header.
func (h Header) parse(values func(name string) []string) ([]*x509.Certificate, error) {
	value, err := single(values(h.Name))
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	switch h.Form {
	case RFC9440:
		var more string
		if more, err = single(values(h.Name + chainSuffix)); err == nil {
			chain, err = parseClientCert(value, more)
		}
	case XFCC:
		chain, err = parseXFCC(value)
	case EscapedPEM:
		chain, err = parseEscapedPEM(value)
	case Base64DER:
		chain, err = parseBase64(value)
	default:
		err = fmt.Errorf("there is no form %q", h.Form)
	}
	if err != nil || value == "" {
		return nil, err
	}
	return chain, certificate.CheckChain(chain)
}

// single returns the value of a header that may be sent once; "" if it is not sent.
func single(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", errTwice
	case len(values[0]) > maxHeader:
		return "", errTooLong
	}
	return strings.Trim(values[0], " \t"), nil
}

// parseClientCert parses the values of Client-Cert, a byte sequence, and Client-Cert-Chain, a list of them (RFC 9440 §2, RFC
// 8941 §3.3.5).
func parseClientCert(value, more string) ([]*x509.Certificate, error) {
	if value == "" {
		if more != "" {
			return nil, errors.New("there is a chain without a certificate") // RFC 9440 §2.3
		}
		return nil, nil
	}
	items := []string{value}
	if more != "" {
		items = append(items, strings.Split(more, ",")...)
	}
	var chain []*x509.Certificate
	for _, item := range items {
		item = strings.Trim(item, " \t")
		if len(item) < 2 || item[0] != ':' || item[len(item)-1] != ':' {
			return nil, errEncoding
		}
		one, err := parseBase64(item[1 : len(item)-1])
		if err != nil {
			return nil, err
		}
		chain = append(chain, one...)
	}
	return chain, nil
}

// parseBase64 parses one certificate in DER, in base64.
func parseBase64(value string) ([]*x509.Certificate, error) {
	if value == "" {
		return nil, nil
	}
	der, err := base64.StdEncoding.DecodeString(value)
	if err != nil || strings.ContainsAny(value, "\r\n") {
		return nil, errEncoding
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate cannot be parsed: %w", err)
	}
	return []*x509.Certificate{c}, nil
}

// parseEscapedPEM parses certificates in PEM, with percent-encoding. A plus sign stands for itself.
func parseEscapedPEM(value string) ([]*x509.Certificate, error) {
	text, err := url.PathUnescape(value)
	if err != nil {
		return nil, errEncoding
	}
	var chain []*x509.Certificate
	for rest := []byte(text); len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, errEncoding
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate cannot be parsed: %w", err)
		}
		chain = append(chain, c)
	}
	return chain, nil
}
