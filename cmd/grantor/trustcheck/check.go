package trustcheck

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/certificate"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// checker checks one piece of evidence.
type checker struct {
	*rules

	// audience is the identifier of the issuer that the evidence is for; "" if it is not known.
	audience string
	// keys is the content of keysFile, which was given with --keys; "" if none was.
	keys     []byte
	keysFile string
	now      time.Time
}

// check returns what an issuer with the rules makes of the evidence.
func (c *checker) check(ctx context.Context, sent *evidence) (*report, error) {
	id, err := sent.identity(c.table)
	if err != nil {
		return nil, err
	}
	r := &report{Kind: sent.kind(), Issuer: id.IssuerID(), Subject: id.Name()}
	issuer, trusted := c.table.Issuer(r.Issuer)
	switch {
	case !trusted:
		r.add("issuer", wrong, "it is not among the trusted issuers")
		return r, nil
	case id.SPIFFEID == "" && id.Issuer == id.Subject:
		r.add("issuer", wrong, "its iss is its sub, as in an assertion of a client with a key")
		return r, nil
	}
	r.add("issuer", right, c.place(trust.KindIssuer+" "+r.Issuer, ""))
	result, why := c.checkSignature(ctx, sent, issuer)
	r.add("signature", result, why)
	if sent.token != nil {
		c.checkToken(r, sent.token, issuer)
	} else {
		c.checkCertificate(r, sent.chain[0])
	}
	c.matchClients(r, id, sent.method())
	c.matchWorkloads(r, id)
	return r, nil
}

// checkToken checks the type, the times and the audience of a token.
func (c *checker) checkToken(r *report, token *trust.Token, issuer *trust.Issuer) {
	verdict := issuer.CheckToken(token, c.audience)
	if verdict.Type != nil {
		r.judge("type", verdict.Type, "")
	}
	r.judge("times", cmp.Or(verdict.Times, verdict.Validity.Check(c.now)), "it expires at "+formatTime(verdict.Validity.Expires))
	if len(issuer.Accepts(c.audience)) == 0 {
		r.add("audience", unknown, "give --issuer")
		return
	}
	r.judge("audience", verdict.Audience, strings.Join(token.Claims.Texts("aud"), " "))
}

// checkCertificate checks the times and the usage of an X509-SVID.
func (c *checker) checkCertificate(r *report, leaf *x509.Certificate) {
	r.judge("times", certificate.CheckValidity(leaf, c.now), "it expires at "+formatTime(leaf.NotAfter))
	r.judge("usage", trust.CheckUsage(leaf), "it is for clients")
}

// matchClients tries the rules of the registered clients, and their fields for a SPIFFE ID.
func (c *checker) matchClients(r *report, id trust.Identity, method string) {
	for i := range c.clients {
		client := &c.clients[i]
		try := func(name, field, why string) {
			tried := match{Rule: fmt.Sprintf("client %s, %s", client.ID, name), Client: client.ID.String(), Why: why}
			tried.Place = c.place("client "+tried.Client, field)
			switch {
			case why != "":
			case client.Disabled:
				tried.Why = "the client is disabled"
			case !client.Allows(method):
				tried.Why = "the client may not use " + method
			default:
				tried.Matches = true
			}
			r.try(tried)
		}
		for n := range client.Federation {
			rule := &client.Federation[n]
			if rule.IssuerID() != r.Issuer {
				continue
			}
			_, why := rule.Match(id)
			try(fmt.Sprintf("rule %d", n+1), fmt.Sprintf("federation[%d]", n), why)
		}
		switch field := (trust.Identity{SPIFFEID: client.SPIFFEID}); {
		case client.SPIFFEID == "" || field.IssuerID() != r.Issuer:
		case client.MatchesSPIFFEID(id.SPIFFEID):
			try("spiffe_id", "spiffe_id", "")
		default:
			try("spiffe_id", "spiffe_id", fmt.Sprintf("the SPIFFE ID is not %q", client.SPIFFEID))
		}
	}
}

// matchWorkloads tries the workloads.
func (c *checker) matchWorkloads(r *report, id trust.Identity) {
	for i := range c.table.Workloads() {
		workload := &c.table.Workloads()[i]
		if workload.Rule.IssuerID() != r.Issuer {
			continue
		}
		pattern := workload.ClientID.String()
		tried := match{Rule: "workload " + pattern, Place: c.place(trust.KindWorkload+" "+pattern, "")}
		client, why, ok := workload.Match(id)
		if tried.Why = why; ok {
			tried.Client = client.String()
			tried.Why = c.overlaid(tried.Client)
			tried.Matches = tried.Why == ""
		}
		r.try(tried)
	}
}

// overlaid returns why a client of a workload is refused because of a registered client with its id; "" if it is not.
func (c *checker) overlaid(id string) string {
	i := slices.IndexFunc(c.clients, func(client registry.Client) bool { return client.ID.String() == id })
	switch {
	case i < 0:
		return ""
	case !c.clients[i].Workload:
		return "the client " + id + " is registered, and not as one of a workload"
	case c.clients[i].Disabled:
		return "the client " + id + " is disabled"
	}
	return ""
}

func formatTime(at time.Time) string { return at.UTC().Format(time.RFC3339) }
