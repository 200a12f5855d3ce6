package clientassertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/grantorhq/grantor/service/jwks"
)

// maxKeyFile is the maximum size of a file with a private key, in bytes.
const maxKeyFile = 64 << 10

// ReadKey reads a private key from a PEM file: PKCS #8, or the older forms for RSA and EC keys, without a password. An error
// never contains a part of the file.
func ReadKey(path string) (crypto.Signer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxKeyFile:
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxKeyFile)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if private := parseKey(block); private != nil {
			return private, nil
		}
	}
	return nil, fmt.Errorf("%s has no private key in PEM (PKCS #8, PKCS #1 or SEC 1) without a password", path)
}

// parseKey returns the private key of a PEM block, or nil if it has none.
func parseKey(block *pem.Block) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		private, _ := key.(crypto.Signer)
		return private
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key
	}
	return nil
}

// WriteNewKey makes a private key for ES256 and writes it in PKCS #8 and PEM to a file that must not exist yet, and that no
// other user can read. It returns the public key.
func WriteNewKey(path string) (jwks.Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return jwks.Key{}, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return jwks.Key{}, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return jwks.Key{}, err
	}
	err = pem.Encode(file, &pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	if err := errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(path)
		return jwks.Key{}, err
	}
	return Key(private.Public())
}
