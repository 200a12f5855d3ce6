package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/oauth"
)

// status describes this replica to the others and to grantor doctor.
func (srv *server) status() heartbeat.Status {
	status := srv.service.Status()
	status.Version = thisBuild().Version
	status.Host, _ = os.Hostname()
	status.HTTP, status.GRPC = srv.ports.http.Addr().String(), srv.ports.grpc.Addr().String()
	status.Settings = srv.common
	status.Insecure = srv.insecureOptions()
	if srv.ports.tls != nil {
		status.CertificateEnds = srv.ports.tls.ends()
	}
	return status
}

// The insecure options, as a replica tells of them.
const (
	insecureDevelopment = "dev"
	insecurePlaintext   = "insecure-allow-plaintext-beyond-loopback"
)

// insecureOptions lists the insecure options in force.
func (srv *server) insecureOptions() []string {
	var found []string
	if srv.settings.dev {
		found = append(found, insecureDevelopment)
	}
	if srv.settings.tlsCert == "" && srv.settings.allowPlaintext {
		found = append(found, insecurePlaintext)
	}
	return found
}

// commonSettings gives what must be the same for all replicas of an issuer, by the settings' names.
func (srv *server) commonSettings(issuer oauth.Issuer) map[string]string {
	s := srv.settings
	return map[string]string{
		"issuer":                issuer.String(),
		"grpc-endpoint":         srv.grpcEndpoint(issuer),
		"signing-algorithms":    strings.Join(s.algorithms, ","),
		"access-token-lifetime": s.tokenLifetime.String(),
		"key-rotation":          s.keyRotation.String(),
		"jwks-max-age":          s.jwksMaxAge.String(),
		"max-staleness":         s.maxStaleness.String(),
		"revocation-replicas":   strconv.Itoa(s.redisReplicas),
	}
}

// ends is when the first of the certificates ends that are in use.
func (f *tlsFiles) ends() time.Time {
	var first time.Time
	for _, pair := range f.latest().Certificates {
		if leaf := pair.Leaf; leaf != nil && (first.IsZero() || leaf.NotAfter.Before(first)) {
			first = leaf.NotAfter
		}
	}
	return first
}
