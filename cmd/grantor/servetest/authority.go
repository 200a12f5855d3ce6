package servetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
)

// Trusted is the authority that [Trust] makes this process trust.
var Trusted *Authority

// Trust creates an authority and names it in SSL_CERT_FILE. The returned function removes the file.
func Trust() (forget func()) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "trusted test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	key := must.Get(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must.Get(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	Trusted = &Authority{
		Certificate: must.Get(x509.ParseCertificate(der)), Key: key,
		PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}
	file := must.Get(os.CreateTemp("", "authority"))
	must.Get(file.Write(Trusted.PEM))
	_ = file.Close()
	_ = os.Setenv("SSL_CERT_FILE", file.Name())
	return func() { _ = os.Remove(file.Name()) }
}

// KeyPair is the files of a certificate and its key.
type KeyPair struct{ Cert, Key string }

// WriteCertificate writes a certificate for this machine that expires after a duration.
func (a *Authority) WriteCertificate(t *testing.T, ends time.Duration) KeyPair {
	t.Helper()
	return a.WriteCertificateFor(t, ends, "localhost", net.IPv4(127, 0, 0, 1))
}

// WriteCertificateFor writes a certificate for a host that expires after a duration.
func (a *Authority) WriteCertificateFor(t *testing.T, ends time.Duration, name string, addresses ...net.IP) KeyPair {
	t.Helper()
	_, _, cert, key := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, IPAddresses: addresses,
		NotBefore: time.Now().AddDate(0, -1, 0), NotAfter: time.Now().Add(ends), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return KeyPair{WriteFile(t, "cert.pem", string(cert)), WriteFile(t, "key.pem", string(key))}
}

// Transport returns a new transport, which keeps its connections. Over HTTP/1.1 a server cannot close an idle
// connection without the risk that a request is in flight on it (RFC 9112 §9.5). So the transport closes idle
// connections sooner than the shutdown-delay, within which the server ends the others by a response.
func Transport(t testing.TB, trust *tls.Config, http2 bool) *http.Transport {
	t.Helper()
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSClientConfig: trust.Clone()}
	if !http2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP1(true)
	}
	transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = 100, 500*time.Millisecond
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
	PEM         []byte
}

// NewAuthority creates an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a := &Authority{}
	a.Certificate, a.Key, a.PEM, _ = a.sign(t, template)
	return a
}

// sign signs a certificate; an authority without a certificate signs its own.
func (a *Authority) sign(t testing.TB, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := a.Certificate, a.Key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// WriteLeaf writes a certificate for localhost and its key to dir.
func (a *Authority) WriteLeaf(t testing.TB, dir string, serial int64) (certFile, keyFile string) {
	t.Helper()
	_, _, cert, key := a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, content := range map[string][]byte{certFile: cert, keyFile: key} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// Pool returns a pool with the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate)
	return pool
}

// GetKeySet requests the key set, which needs no authentication.
func GetKeySet(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := grantorv1.NewTokenServiceClient(conn).GetKeySet(t.Context(), &grantorv1.GetKeySetRequest{})
	return err
}

// DialTLS returns a connection over TLS that is closed when the test ends.
func DialTLS(t *testing.T, address string, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
