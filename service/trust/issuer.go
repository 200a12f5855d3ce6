package trust

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/grantorhq/grantor/service/jwks"
	"github.com/grantorhq/grantor/service/oauth"
)

// Issuer is an authority whose identities are accepted: an issuer of OpenID Connect or the like, or a SPIFFE trust domain.
type Issuer struct {
	// Issuer is the "iss" of its tokens, compared byte for byte; empty for a trust domain.
	Issuer string
	// KeysURI is the URL of its keys. If it is empty and Keys has none, the metadata of the issuer name it (RFC 8414, OpenID
	// Connect Discovery).
	KeysURI string
	Keys    jwks.Document
	// CAFile is a file with the authorities, in PEM, that have signed the certificates of its servers; empty stands for those
	// of the system.
	CAFile string
	// BearerTokenFile is a file with the token that its server asks for when it is asked for keys; empty for none.
	BearerTokenFile string
	// Audience has the "aud" that are accepted of its tokens. Empty stands for the identifier of this server alone.
	Audience []string
	// SingleUse means that each of its tokens is accepted once.
	SingleUse bool

	// TrustDomain is the name of a SPIFFE trust domain; empty for an issuer.
	TrustDomain string
	// One of these is where the bundle of the domain is: the URL of an endpoint (SPIFFE Federation), a file, or the
	// address of the Workload API, such as unix:///run/spire/agent.sock.
	BundleEndpoint, BundleFile, WorkloadAPI string
}

// ID returns what identifies the issuer among all: its "iss", or the SPIFFE ID of the trust domain.
func (i *Issuer) ID() string {
	if i.TrustDomain != "" {
		return "spiffe://" + i.TrustDomain
	}
	return i.Issuer
}

// ETag identifies the state of the issuer. All entries of a table share one version, so it is a hash of the issuer itself.
func (i *Issuer) ETag() string {
	return etag(fmt.Appendf(nil, "%q %q %q %q %q %q %t %q %q %q %q", i.Issuer, i.KeysURI, i.Keys.String(), i.CAFile, i.BearerTokenFile,
		i.Audience, i.SingleUse, i.TrustDomain, i.BundleEndpoint, i.BundleFile, i.WorkloadAPI))
}

func etag(state []byte) string {
	sum := sha256.Sum256(state)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

const (
	// maxAudience is the maximum number of audiences, and maxText the maximum size of a text, in bytes.
	maxAudience = 8
	maxText     = 512
)

// Check returns what is wrong with the issuer as a [FieldError].
func (i *Issuer) Check() error {
	switch {
	case (i.Issuer == "") == (i.TrustDomain == ""):
		return &FieldError{"issuer", "set one of issuer and trust_domain"}
	case i.TrustDomain != "":
		return cmp.Or(i.checkDomain(), i.checkAudience())
	}
	return cmp.Or(i.checkIssuer(), i.checkAudience())
}

func (i *Issuer) checkIssuer() error {
	for field, value := range map[string]string{
		"bundle_endpoint": i.BundleEndpoint, "bundle_file": i.BundleFile, "workload_api": i.WorkloadAPI,
	} {
		if value != "" {
			return &FieldError{field, "is for a trust_domain"}
		}
	}
	if err := oauth.SecureURL(i.Issuer); err != nil || len(i.Issuer) > maxText {
		return &FieldError{"issuer", fmt.Sprintf("is not an https URL of at most %d bytes", maxText)}
	}
	if i.KeysURI != "" && i.Keys.String() != "" {
		return &FieldError{"jwks_uri", "cannot be set beside jwks"}
	}
	return errors.Join(fieldError("jwks_uri", checkURL(i.KeysURI)), i.checkFiles())
}

func (i *Issuer) checkAudience() error {
	if len(i.Audience) > maxAudience {
		return &FieldError{"audience", fmt.Sprintf("has more than %d", maxAudience)}
	}
	for _, audience := range i.Audience {
		if audience == "" || len(audience) > maxText {
			return &FieldError{"audience", fmt.Sprintf("one has not 1 to %d bytes", maxText)}
		}
	}
	return nil
}

func (i *Issuer) checkDomain() error {
	for field, set := range map[string]bool{
		"jwks_uri": i.KeysURI != "", "jwks": i.Keys.String() != "", "bearer_token_file": i.BearerTokenFile != "",
		"single_use": i.SingleUse,
	} {
		if set {
			return &FieldError{field, "is for an issuer"}
		}
	}
	// TrustDomainFromString accepts a SPIFFE ID too, which would be trusted under an ID that no identity has.
	if domain, err := spiffeid.TrustDomainFromString(i.TrustDomain); err != nil || domain.Name() != i.TrustDomain || len(i.TrustDomain) > 255 {
		return &FieldError{"trust_domain", "is not the name of a trust domain such as prod.example.com"}
	}
	places := 0
	for _, place := range [...]string{i.BundleEndpoint, i.BundleFile, i.WorkloadAPI} {
		if place != "" {
			places++
		}
	}
	if places != 1 {
		return &FieldError{"bundle_endpoint", "set one of bundle_endpoint, bundle_file and workload_api"}
	}
	return errors.Join(fieldError("bundle_endpoint", checkURL(i.BundleEndpoint)), fieldError("workload_api", checkSocket(i.WorkloadAPI)),
		i.checkFiles())
}

// CheckDirectories returns an error for the first file that the issuer names and that is below none of the directories,
// as a [FieldError]: no replica with these directories reads it. What the issuer named before a change, the stored one,
// is not checked.
func (i *Issuer) CheckDirectories(d Directories, stored *Issuer) error {
	const scheme = "unix://"
	for _, file := range [...]struct{ field, path, stored string }{
		{"ca_file", i.CAFile, stored.CAFile}, {"bearer_token_file", i.BearerTokenFile, stored.BearerTokenFile},
		{"bundle_file", i.BundleFile, stored.BundleFile}, {"workload_api", i.WorkloadAPI, stored.WorkloadAPI},
	} {
		if file.path != file.stored && file.path != "" && !d.Cover(strings.TrimPrefix(file.path, scheme)) {
			return &FieldError{file.field, "is below no directory that the setting trust-directories of this issuer names"}
		}
	}
	return nil
}

func (i *Issuer) checkFiles() error {
	for field, path := range map[string]string{
		"ca_file": i.CAFile, "bearer_token_file": i.BearerTokenFile, "bundle_file": i.BundleFile,
	} {
		if path != "" && (!filepath.IsAbs(path) || filepath.Clean(path) != path || len(path) > maxText) {
			return &FieldError{field, fmt.Sprintf("is not an absolute path of at most %d bytes without . and ..", maxText)}
		}
	}
	return nil
}

// checkSocket returns what is wrong with the address of the Workload API. The empty address is right.
func checkSocket(address string) error {
	path, ok := strings.CutPrefix(address, "unix://")
	if address != "" && (!ok || !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsAny(path, "?#%") || len(path) > maxText) {
		return fmt.Errorf("is not unix:// and an absolute path of at most %d bytes without ., .., ?, # and %%", maxText)
	}
	return nil
}

// checkURL returns what is wrong with an URL from which keys are fetched. The empty URL is right.
func checkURL(raw string) error {
	if raw == "" {
		return nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || len(raw) > maxText || oauth.SecureURL(raw) != nil {
		return fmt.Errorf("is not an https URL of at most %d bytes without a user and a fragment", maxText)
	}
	return nil
}
