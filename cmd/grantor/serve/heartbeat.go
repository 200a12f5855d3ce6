package serve

import (
	"os"
	"strconv"
	"strings"

	"github.com/grantorhq/grantor/cmd/grantor/buildinfo"
	"github.com/grantorhq/grantor/service/heartbeat"
	"github.com/grantorhq/grantor/service/oauth"
)

// status describes this replica to the other replicas and to grantor doctor.
func (srv *Server) status() heartbeat.Status {
	status := srv.service.Status()
	status.Version = buildinfo.Read().Version
	status.Host, _ = os.Hostname()
	status.HTTP, status.GRPC = srv.ports.HTTPAddr(), srv.ports.GRPCAddr()
	status.Settings = srv.shared
	status.Insecure = srv.insecureOptions()
	if certificate := srv.ports.Certificate(); certificate != nil {
		status.CertificateEnds = certificate.NotAfter()
	}
	return status
}

// insecureOptions lists the insecure options in effect.
func (srv *Server) insecureOptions() []string {
	var found []string
	if srv.settings.dev {
		found = append(found, heartbeat.InsecureDevelopment)
	}
	if srv.settings.tlsCert == "" && srv.settings.allowPlaintext {
		found = append(found, heartbeat.InsecurePlaintext)
	}
	return found
}

// sharedSettings returns the settings that must be the same for all replicas of an issuer, keyed by name.
func (srv *Server) sharedSettings(issuer oauth.Issuer) map[string]string {
	s := srv.settings
	return map[string]string{
		"issuer":                issuer.String(),
		"grpc-endpoint":         srv.grpcEndpoint(issuer),
		"signing-algorithms":    strings.Join(s.algorithms, ","),
		"access-token-lifetime": s.tokenLifetime.String(),
		"key-rotation":          s.keyRotation.String(),
		"jwks-max-age":          s.jwksMaxAge.String(),
		"max-staleness":         s.maxStaleness.String(),
		"revocation-replicas":   strconv.Itoa(s.RedisReplicas),
	}
}
