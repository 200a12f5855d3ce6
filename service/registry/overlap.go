package registry

import (
	"fmt"
	"maps"
	"slices"

	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/trust"
)

// clientRule is a rule in the federation of a client of a manifest.
type clientRule struct {
	*trust.Rule

	client oauth.ClientID
	index  int
}

// invalid returns the error about the rule.
func (r *clientRule) invalid(format string, args ...any) error {
	return &ManifestError{r.client, &FieldError{Field: fmt.Sprintf("federation[%d]", r.index), Problem: fmt.Sprintf(format, args...)}}
}

// checkIdentities rejects a manifest in which an identity may be two clients, or a client of a workload is registered
// as another one. What is stored and not listed is not compared.
func (m *Manifest) checkIdentities() error {
	selections := make([]*trust.Selection, len(m.Workloads))
	for i := range m.Workloads {
		selections[i] = m.Workloads[i].Selection()
	}
	byIssuer := make(map[string][]clientRule)
	for i := range m.Clients {
		client := &m.Clients[i].Client
		if err := client.checkSelections(selections); err != nil {
			return err
		}
		for n := range client.Federation {
			rule := &client.Federation[n]
			byIssuer[rule.IssuerID()] = append(byIssuer[rule.IssuerID()], clientRule{rule, client.ID, n})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byIssuer)) {
		if err := checkRules(byIssuer[id]); err != nil {
			return err
		}
	}
	return nil
}

// checkSelections returns what is wrong with the client, given what the workloads select.
func (c *Client) checkSelections(selections []*trust.Selection) error {
	for _, s := range selections {
		if !c.Workload && s.Includes(c.ID) {
			problem := fmt.Sprintf("is that of a client of the workload %s too; set workload: true to restrict that client", s.ClientID)
			return &ManifestError{c.ID, &FieldError{Field: "client_id", Problem: problem}}
		}
		for n := range c.Federation {
			if rule := (clientRule{&c.Federation[n], c.ID, n}); rule.Overlaps(&s.Rule) {
				return rule.invalid("an identity may match the workload %s too", s.ClientID)
			}
		}
	}
	return nil
}

// checkRules rejects two rules of different clients that an identity may match. Many clients of one issuer differ in
// the text of one part of their rules, such as the subject, so that only rules with the same text there are compared.
func checkRules(rules []clientRule) error {
	part := distinctPart(rules)
	byText := make(map[string][]*clientRule)
	var open []*clientRule
	for i := range rules {
		rule := &rules[i]
		others := open
		text, fixed := fixedText(rule.Rule, part)
		if fixed {
			others = slices.Concat(byText[text], open)
			byText[text] = append(byText[text], rule)
		} else {
			for k := range rules[:i] {
				others = append(others, &rules[k])
			}
			open = append(open, rule)
		}
		for _, other := range others {
			if other.client != rule.client && rule.Overlaps(other.Rule) {
				return rule.invalid("an identity may match the client %s too", other.client)
			}
		}
	}
	return nil
}

// The parts of a rule that are not claims. No claim can have these names, because they begin with a space.
const (
	partSubject  = " subject"
	partSPIFFEID = " spiffe_id"
)

// distinctPart returns the part that has the most different texts in the rules.
func distinctPart(rules []clientRule) string {
	texts := make(map[string]map[string]bool)
	for i := range rules {
		for _, name := range append(slices.Collect(maps.Keys(rules[i].Claims)), partSubject, partSPIFFEID) {
			text, fixed := fixedText(rules[i].Rule, name)
			if !fixed {
				continue
			}
			if texts[name] == nil {
				texts[name] = make(map[string]bool)
			}
			texts[name][text] = true
		}
	}
	best := ""
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if len(texts[name]) > len(texts[best]) {
			best = name
		}
	}
	return best
}

// fixedText returns the text of a part of a rule; fixed is false if the part is missing or matches more than one text.
func fixedText(rule *trust.Rule, part string) (text string, fixed bool) {
	var pattern trust.Pattern
	switch part {
	case partSubject:
		pattern = rule.Subject
	case partSPIFFEID:
		pattern = rule.SPIFFEID
	default:
		pattern = rule.Claims[part]
	}
	text = pattern.String()
	return text, text != "" && !pattern.Any() && len(pattern.Names()) == 0
}
