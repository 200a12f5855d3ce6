package manifest

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

func (m *File) readIssuer(item *yaml.Node) error {
	var i trust.Issuer
	table := registry.IssuerFields()
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) (err error) {
		fields[key] = node
		if field, ok := lookUp(table, key); ok {
			return readField(m.doc, node, field, &i)
		}
		switch key {
		case "issuer":
			i.Issuer, err = m.doc.Scalar(node)
		case "trust_domain":
			i.TrustDomain, err = m.doc.Scalar(node)
		default:
			err = m.doc.Errorf(node, "a trusted issuer has no field %q", key)
		}
		return err
	})
	if err == nil {
		err = m.wrong(item, fields, i.Check())
	}
	if err != nil {
		return err
	}
	m.Issuers = append(m.Issuers, i)
	return m.remember(trust.KindIssuer+" "+i.ID(), item, fields)
}

func (m *File) readWorkload(item *yaml.Node) error {
	var w trust.Workload
	table := registry.WorkloadFields()
	fields := make(map[string]*yaml.Node)
	err := m.doc.Fields(item, func(key string, node *yaml.Node) (err error) {
		fields[key] = node
		if field, ok := lookUp(table, key); ok {
			return readField(m.doc, node, field, &w)
		}
		if key != "client_id" {
			return m.doc.Errorf(node, "a workload has no field %q", key)
		}
		w.ClientID, err = parse(m.doc, node, trust.ParsePattern)
		return err
	})
	if err == nil {
		err = m.wrong(item, fields, w.Check())
	}
	if err != nil {
		return err
	}
	m.Workloads = append(m.Workloads, w)
	return m.remember(trust.KindWorkload+" "+w.ClientID.String(), item, fields)
}

// wrong returns an error about a field of an item, with its line; nil for nil.
func (m *File) wrong(item *yaml.Node, fields map[string]*yaml.Node, err error) error {
	field, ok := errors.AsType[*trust.FieldError](err)
	switch {
	case err == nil:
		return nil
	case ok && fields[field.Field] != nil:
		item = fields[field.Field]
	}
	return m.doc.Errorf(item, "%v", err)
}

// ruleFields are the fields of a workload that are its rule, and those of a rule in the federation of a client.
var ruleFields = []string{"issuer", "subject", "claims", "spiffe_id"}

// readFederation reads the rules of a client, and records the place of each in fields.
func (m *File) readFederation(c *registry.Client, node *yaml.Node, fields map[string]*yaml.Node) error {
	table := registry.WorkloadFields()
	return items(m.doc, node, func(item *yaml.Node) error {
		var w trust.Workload
		places := make(map[string]*yaml.Node)
		err := m.doc.Fields(item, func(key string, node *yaml.Node) error {
			places[key] = node
			field, ok := lookUp(table, key)
			if !ok || !slices.Contains(ruleFields, key) {
				return m.doc.Errorf(node, "a rule has no field %q", key)
			}
			return readField(m.doc, node, field, &w)
		})
		if err == nil {
			err = m.wrong(item, places, w.Rule.Check())
		}
		fields[fmt.Sprintf("federation[%d]", len(c.Federation))] = item
		c.Federation = append(c.Federation, w.Rule)
		return err
	})
}

// readMap sets a field of t to names and texts.
func readMap[T any](doc *yamldoc.Document, node *yaml.Node, field *registry.Field[T], t *T) error {
	if node.Kind == yaml.MappingNode && len(node.Content) > 2*maxItems {
		return doc.Errorf(node, "%s has more than %d entries", field.Name, maxItems)
	}
	texts := make(map[string]string)
	err := doc.Fields(node, func(name string, value *yaml.Node) error {
		text, err := doc.Scalar(value)
		if err != nil {
			return err
		}
		texts[name] = text
		// Each is set alone too, so that an error has its line.
		if err := field.Set(new(T), map[string]string{name: text}); err != nil {
			return invalid(doc, value, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return field.Set(t, texts)
}
