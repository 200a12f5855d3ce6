package trusttest

import (
	"crypto/rand"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/grantorhq/grantor/service/jws/jwstest"
	"github.com/grantorhq/grantor/service/must"
)

// KubernetesIssuer is the "iss" of the service account tokens of a cluster with the defaults of kubeadm.
const KubernetesIssuer = "https://kubernetes.default.svc.cluster.local"

// Kubernetes is a double of an API server: its endpoints for the discovery of service account issuers, which ask for a service
// account token, over TLS with an authority that no system trusts.
type Kubernetes struct {
	*Issuer

	// Directory is like /var/run/secrets/kubernetes.io/serviceaccount in a pod: ca.crt and token are links into ..data, which is
	// a link to a directory that is replaced as a whole.
	Directory string

	version int
}

// NewKubernetes starts an API server. It stops when the test ends.
func NewKubernetes(tb testing.TB) *Kubernetes {
	tb.Helper()
	i := newIssuer("/openid/v1/jwks")
	i.server = httptest.NewTLSServer(i)
	i.start(tb)
	i.Name = KubernetesIssuer
	k := &Kubernetes{Issuer: i, Directory: tb.TempDir()}
	must.Succeed(tb, k.Project())
	for _, name := range []string{"ca.crt", "token"} {
		must.Succeed(tb, os.Symlink(filepath.Join("..data", name), filepath.Join(k.Directory, name)))
	}
	return k
}

// CAFile returns the path of the authority's certificate, and TokenFile that of the pod's token.
func (k *Kubernetes) CAFile() string { return filepath.Join(k.Directory, "ca.crt") }

// TokenFile returns the path of the pod's token.
func (k *Kubernetes) TokenFile() string { return filepath.Join(k.Directory, "token") }

// Project replaces the token of the pod by a new one, as the kubelet does. The server accepts no other.
func (k *Kubernetes) Project() error {
	k.version++
	token := k.SignKubernetes(k.ServiceAccount("grantor", "grantor", k.Name, time.Now()))
	k.bearer.Store(&token)
	data := filepath.Join(k.Directory, "..v"+strconv.Itoa(k.version))
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(data, "ca.crt"), authority, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(data, "token"), []byte(token), 0o600); err != nil {
		return err
	}
	temporary := filepath.Join(k.Directory, "..data_tmp")
	if err := os.Symlink(filepath.Base(data), temporary); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(k.Directory, "..data"))
}

// ServiceAccount returns the claims of a projected token of a service account, as the API server makes them for a pod.
func (i *Issuer) ServiceAccount(namespace, name, audience string, now time.Time) jwstest.Object {
	return jwstest.Object{
		"iss": i.Name, "aud": []string{audience}, "sub": "system:serviceaccount:" + namespace + ":" + name, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": jwstest.Object{
			"namespace":      namespace,
			"node":           jwstest.Object{"name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1"},
			"pod":            jwstest.Object{"name": name + "-6d8f", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3"},
			"serviceaccount": jwstest.Object{"name": name, "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"},
			"warnafter":      now.Add(50 * time.Minute).Unix(),
		},
	}
}

// SignKubernetes returns a token with the claims. Its header has no "typ", as that of Kubernetes.
func (i *Issuer) SignKubernetes(claims jwstest.Object) string {
	s := i.Signer()
	return s.Sign(jwstest.Object{"alg": string(s.Algorithm), "kid": s.Key().ID()}, claims)
}
