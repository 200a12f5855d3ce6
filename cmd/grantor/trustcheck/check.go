package trustcheck

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/grantorhq/grantor/service/clientassertion"
	"github.com/grantorhq/grantor/service/jws"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// leeway is how far the clock of an issuer may be ahead of this machine's.
const leeway = 30 * time.Second

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
	r := &report{Kind: sent.kind(), Issuer: id.IssuerID(), Subject: id.Subject + id.SPIFFEID}
	issuer, trusted := c.table.Issuer(r.Issuer)
	if !trusted {
		r.add("issuer", wrong, "it is not among the trusted issuers")
		return r, nil
	}
	r.add("issuer", right, c.place(trust.KindIssuer+" "+r.Issuer, ""))
	result, why := c.checkSignature(ctx, sent, issuer)
	r.add("signature", result, why)
	if sent.message != nil {
		checkType(r, sent.message.Header.Type)
		c.checkTimes(r, sent.claims)
		c.checkAudience(r, sent.claims, issuer)
	} else {
		c.checkCertificate(r, sent.chain[0])
	}
	c.matchClients(r, id)
	c.matchWorkloads(r, id)
	return r, nil
}

// checkType checks that a token is not one with another purpose, which an issuer may sign with the same keys (RFC 8725 §3.11).
func checkType(r *report, typ string) {
	name := jws.MediaType(typ)
	for _, known := range [...]string{"", "JWT", "at+jwt", clientassertion.MediaType} {
		if oauth.EqualFold(name, known) {
			return
		}
	}
	r.add("type", wrong, fmt.Sprintf("typ is %.40q, want JWT or none", typ))
}

// checkTimes checks when a token is valid.
func (c *checker) checkTimes(r *report, claims jws.Claims) {
	expires, err := claims.Time("exp")
	switch {
	case err != nil:
		r.add("times", wrong, err.Error())
		return
	case !c.now.Before(expires):
		r.add("times", wrong, "it expired at "+formatTime(expires))
		return
	}
	for _, name := range [...]string{"nbf", "iat"} {
		if _, ok := claims[name]; !ok {
			continue
		}
		if start, err := claims.Time(name); err != nil || start.After(c.now.Add(leeway)) {
			r.add("times", wrong, name+" is no time, or ahead")
			return
		}
	}
	r.add("times", right, "it expires at "+formatTime(expires))
}

// checkAudience checks whom a token is for: a list with one member is the same as its member, and several are refused.
func (c *checker) checkAudience(r *report, claims jws.Claims, issuer *trust.Issuer) {
	audience := claims.Texts("aud")
	accepted := issuer.Audience
	if len(accepted) == 0 && c.audience == "" {
		r.add("audience", unknown, "give --issuer")
		return
	}
	if c.audience != "" {
		accepted = append(slices.Clone(accepted), c.audience)
	}
	switch {
	case len(audience) != 1:
		r.add("audience", wrong, fmt.Sprintf("there are %d, want one", len(audience)))
	case !slices.Contains(accepted, audience[0]):
		r.add("audience", wrong, fmt.Sprintf("it is %.200q, want %s", audience[0], strings.Join(accepted, " or ")))
	default:
		r.add("audience", right, audience[0])
	}
}

// checkCertificate checks a certificate by itself.
func (c *checker) checkCertificate(r *report, leaf *x509.Certificate) {
	switch {
	case c.now.After(leaf.NotAfter):
		r.add("times", wrong, "it expired at "+formatTime(leaf.NotAfter))
	case c.now.Before(leaf.NotBefore):
		r.add("times", wrong, "it is valid from "+formatTime(leaf.NotBefore))
	default:
		r.add("times", right, "it expires at "+formatTime(leaf.NotAfter))
	}
	for _, usage := range leaf.ExtKeyUsage {
		if usage == x509.ExtKeyUsageClientAuth || usage == x509.ExtKeyUsageAny {
			r.add("usage", right, "it is for clients")
			return
		}
	}
	r.add("usage", wrong, "its extended key usage lacks clientAuth")
}

// matchClients tries the rules of the registered clients.
func (c *checker) matchClients(r *report, id trust.Identity) {
	for i := range c.clients {
		client := &c.clients[i]
		for n := range client.Federation {
			rule := &client.Federation[n]
			if rule.IssuerID() != r.Issuer {
				continue
			}
			tried := match{Rule: fmt.Sprintf("client %s, rule %d", client.ID, n+1), Client: client.ID.String()}
			tried.Place = c.place("client "+tried.Client, fmt.Sprintf("federation[%d]", n))
			switch _, tried.Why = rule.Match(id); {
			case tried.Why != "":
			case client.Disabled:
				tried.Why = "the client is disabled"
			default:
				tried.Matches = true
			}
			r.try(tried)
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
