package rpc

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/grantorhq/grantor/service/dpop"
	"github.com/grantorhq/grantor/service/oauth"
)

// The metadata of a DPoP proof and of a nonce.
var proofKey, nonceKey = strings.ToLower(dpop.Header), strings.ToLower(dpop.NonceHeader)

// proveKey returns the thumbprint of the key that the DPoP proof of a call is made with (RFC 9449 §5); empty if the call has no
// proof. It is called after the client was authenticated, so that only clients can fill the memory of proofs. That memory is this
// replica's: a proof that is used at two replicas has at most let its client have two tokens of the same key.
func (s *TokenServer) proveKey(ctx context.Context, fullMethod string) (thumbprint string, _ error) {
	sent, err := dpop.One(metadata.ValueFromIncomingContext(ctx, proofKey))
	if err != nil {
		return "", &oauth.Error{Code: oauth.InvalidDPoPProof, Text: "There must be exactly one DPoP proof, in one header DPoP.", Cause: err}
	}
	if sent == "" {
		return "", nil
	}
	proof, err := s.Proofs.Verify(sent, s.proofTarget(ctx, fullMethod))
	switch {
	case errors.Is(err, dpop.ErrNonce):
		nonce := s.Proofs.Nonce()
		provideNonce(ctx, nonce)
		return "", &oauth.Error{Code: oauth.UseDPoPNonce, Text: "The DPoP proof must contain the nonce that is provided.", Cause: err, Nonce: nonce}
	case err != nil:
		return "", &oauth.Error{Code: oauth.InvalidDPoPProof, Text: "The DPoP proof is not valid for this request, or was used before.", Cause: err}
	}
	if proof.NextNonce != "" {
		provideNonce(ctx, proof.NextNonce)
	}
	return proof.KeyThumbprint, nil
}

// proofTarget returns what the proof of a call must be for: the URL of the request over REST, or the method over gRPC.
func (s *TokenServer) proofTarget(ctx context.Context, fullMethod string) *dpop.Request {
	if outer := dpop.FromContext(ctx); outer != nil {
		return outer
	}
	authority := ""
	if values := metadata.ValueFromIncomingContext(ctx, ":authority"); len(values) == 1 {
		authority = values[0]
	}
	secure := false
	if p, ok := peer.FromContext(ctx); ok {
		_, secure = p.AuthInfo.(grpccredentials.TLSInfo)
	}
	target := &dpop.Request{Method: http.MethodPost, URLs: dpop.URLs(authority, fullMethod, secure)}
	if s.GRPCEndpoint != "" {
		target.URLs = append(target.URLs, "https://"+s.GRPCEndpoint+fullMethod)
	}
	return target
}

// provideNonce sends a nonce with the response to a call.
func provideNonce(ctx context.Context, nonce string) {
	if outer := dpop.FromContext(ctx); outer != nil {
		outer.NextNonce = nonce
		return
	}
	// A refused call has its header in the trailer. Neither fails within a call.
	_ = grpc.SetHeader(ctx, metadata.Pairs(nonceKey, nonce))
}
