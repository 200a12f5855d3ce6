// Command yardstick serves the minimum that any token issuer must do, as the floor that Grantor is measured against.
// Over gRPC it answers with a fixed message of the size of Grantor's; over HTTP it parses the form and answers with
// fixed JSON. Each call makes one signature, or one verification, with the standard library; for clients with a key,
// both and a write in Redis. Otherwise it stores, checks and logs nothing. `grantor bench` accepts it as an issuer.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

func main() {
	work := flag.String("work", "ES256", "`work` of each call: ES256, EdDSA or RS256 (a signature), verify (of ES256), assertion (both of ES256, and a conditional write in Redis), echo (none), or ext_authz: answer Envoy, which asks nothing else")
	store := flag.String("redis", "", "`address` of the Redis for assertion")
	scope := flag.String("scope", "api1", "`scope` in the answers")
	flag.Parse()
	if *work == "ext_authz" {
		log.Fatal(serve(registerExtAuthz))
	}
	do, err := newWork(*work, *store)
	if err != nil {
		log.Fatal(err)
	}
	s := &server{do: do, answer: answer(*scope), scope: *scope}
	log.Fatal(serve(s.register))
}

// message has the size of what the signature of a token covers.
var message = []byte(strings.Repeat("m", 430))

// newWork returns the function that does the work of a call. store is the address of a Redis.
func newWork(name, store string) (func() error, error) {
	sum := func() []byte { s := sha256.Sum256(message); return s[:] }
	switch name {
	case "echo":
		return func() error { return nil }, nil
	case "ES256", "verify":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if name == "ES256" {
			// Without randomness, as Grantor signs: a tenth less time (RFC 6979).
			return func() error { _, err := key.Sign(nil, sum(), crypto.SHA256); return err }, nil
		}
		signature, err := ecdsa.SignASN1(rand.Reader, key, sum())
		return func() error {
			if !ecdsa.VerifyASN1(&key.PublicKey, sum(), signature) {
				return fmt.Errorf("the signature does not verify")
			}
			return nil
		}, err
	case "assertion":
		return newAssertionWork(store)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return func() error { _, err := key.Sign(rand.Reader, message, crypto.Hash(0)); return err }, err
	case "RS256":
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		return func() error { _, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum()); return err }, err
	}
	return nil, fmt.Errorf("unknown work %q", name)
}

// newAssertionWork returns the function that does what a token request with an assertion needs: verify one signature,
// note in Redis that it was used, unless it was, and make another signature.
func newAssertionWork(store string) (func() error, error) {
	verify, err := newWork("verify", "")
	if err != nil {
		return nil, err
	}
	sign, err := newWork("ES256", "")
	if err != nil {
		return nil, err
	}
	client := redis.NewClient(&redis.Options{Addr: store})
	return func() error {
		if err := verify(); err != nil {
			return err
		}
		first, err := client.SetNX(context.Background(), "yardstick:"+rand.Text(), "1", time.Minute).Result()
		if err != nil || !first {
			return fmt.Errorf("not written: %w", err)
		}
		return sign()
	}, nil
}

// answer returns a response of the size of Grantor's.
func answer(scope string) *grantorv1.IssueTokenResponse {
	return &grantorv1.IssueTokenResponse{
		AccessToken: "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9." + strings.Repeat("A", 430) + "." + strings.Repeat("B", 86),
		TokenType:   "Bearer", ExpiresIn: 3600, Scope: scope,
	}
}

// server answers every call the same, after its work.
type server struct {
	grantorv1.UnimplementedTokenServiceServer
	do     func() error
	answer *grantorv1.IssueTokenResponse
	scope  string
}

// IssueToken implements [grantorv1.TokenServiceServer].
func (s *server) IssueToken(context.Context, *grantorv1.IssueTokenRequest) (*grantorv1.IssueTokenResponse, error) {
	return s.answer, s.do()
}

// IntrospectToken implements [grantorv1.TokenServiceServer]. Every token is active.
func (s *server) IntrospectToken(context.Context, *grantorv1.IntrospectTokenRequest) (*grantorv1.IntrospectTokenResponse, error) {
	return &grantorv1.IntrospectTokenResponse{
		Active: new(true), Iss: "http://127.0.0.1:8080", Sub: "background-service", ClientId: "background-service",
		Aud: []string{"https://orders.internal"}, Scope: s.scope, Exp: 1 << 30, Iat: 1 << 30, Jti: "0123456789abcdef0123456789",
		TokenType: "Bearer",
	}, s.do()
}

// tokenResponse is the response over HTTP (RFC 6749 §5.1).
type tokenResponse struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int32  `json:"expires_in"`
	Scope       string `json:"scope"`
}

// token answers a token request that has a secret or an assertion in its form, or an Authorization header.
func (s *server) token(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("client_secret")+r.PostForm.Get("client_assertion")+r.Header.Get("Authorization") == "" {
		http.Error(w, "no credentials", http.StatusBadRequest)
		return
	}
	if err := s.do(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(tokenResponse{s.answer.GetAccessToken(), s.answer.GetTokenType(), s.answer.GetExpiresIn(), s.answer.GetScope()}) //nolint:errchkjson,gosec // no secret: a token without a signature
}

// serve listens on two free ports of loopback, prints its URL and its address for gRPC, and serves until a listener fails.
// register adds its services. Profiles are served over HTTP.
func serve(register func(rpc *grpc.Server, rest *http.ServeMux, issuer, address string)) error {
	rest, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // until the process ends
	if err != nil {
		return err
	}
	rpc, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // until the process ends
	if err != nil {
		return err
	}
	issuer, address := "http://localhost:"+port(rest), "localhost:"+port(rpc)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	grpcServer := grpc.NewServer(grpc.NumStreamWorkers(64)) // workers keep their grown stacks, as in Grantor
	register(grpcServer, mux, issuer, address)
	failed := make(chan error)
	go func() { failed <- grpcServer.Serve(rpc) }()
	go func() { failed <- http.Serve(rest, mux) }() //nolint:gosec // on loopback, for minutes
	if _, err := fmt.Fprintln(os.Stdout, issuer, address); err != nil {
		return err
	}
	return <-failed
}

// register adds the services of an issuer.
func (s *server) register(rpc *grpc.Server, rest *http.ServeMux, issuer, address string) {
	grantorv1.RegisterTokenServiceServer(rpc, s)
	rest.HandleFunc("POST /connect/token", s.token)
	rest.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": issuer, "token_endpoint": issuer + "/connect/token", "grantor_grpc_endpoint": address, "response_types_supported": []string{},
		})
	})
}

func port(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
