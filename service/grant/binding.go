package grant

import (
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/token"
)

// bind returns the keys to which a token for the resources is bound, of those that the request proves.
//
// A DPoP proof is sent for no other purpose, so that its key always binds the token (RFC 9449 §5). A connection may have a
// client certificate for other reasons, and the services that receive the token may not see it: the certificate binds the token
// only if the client or a resource asks for that (RFC 8705 §3). A resource that asks for either key does so if there is no
// other.
func bind(client *registry.Client, resources []*registry.Resource, proven token.Confirmation) (token.Confirmation, error) {
	bound := token.Confirmation{KeyThumbprint: proven.KeyThumbprint}
	certificate, key, either := client.CertificateBoundTokens, client.DPoPBoundTokens, false
	for _, resource := range resources {
		switch resource.RequireBoundTokens {
		case registry.BindCertificate:
			certificate = true
		case registry.BindDPoP:
			key = true
		case registry.BindAny:
			either = true
		}
	}
	if certificate || either && bound.KeyThumbprint == "" {
		bound.CertificateThumbprint = proven.CertificateThumbprint
	}
	switch {
	case certificate && bound.CertificateThumbprint == "":
		return bound, oauth.Refuse(oauth.InvalidRequest, "A client certificate is required: the token would be bound to it.")
	case key && bound.KeyThumbprint == "":
		return bound, oauth.Refuse(oauth.InvalidRequest, "A DPoP proof is required: the token would be bound to its key.")
	case either && !bound.Bound():
		return bound, oauth.Refuse(oauth.InvalidRequest, "A client certificate or a DPoP proof is required: the token would be bound to its key.")
	}
	return bound, nil
}
