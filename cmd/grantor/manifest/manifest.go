// Package manifest reads the file of clients and resources that grantor apply makes the registry equal to. Each error names
// the file and the line.
package manifest

import (
	"cmp"
	"context"
	"errors"

	"go.yaml.in/yaml/v4"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/yamldoc"
	"github.com/grantorhq/grantor/service/registry"
)

// File is a manifest and the place of each of its fields.
type File struct {
	registry.Manifest
	doc *yamldoc.Document
	// places maps "client ID field" and "resource ID field" to the value of the field. The field "" is the whole item.
	places map[string]*yaml.Node
	// urls are the secrets that are yet to be read.
	urls []secretURL
}

// Parse parses a manifest. Its errors call it name. It leaves clients whose secret is named by a URL without a secret.
func Parse(name string, data []byte) (*File, error) {
	doc, err := yamldoc.Parse(name, data)
	if err != nil {
		return nil, err
	}
	m := &File{doc: doc, places: make(map[string]*yaml.Node)}
	return m, doc.Fields(doc.Root, func(key string, node *yaml.Node) error {
		switch key {
		case "resources":
			return doc.Items(node, m.readResource)
		case "clients":
			return doc.Items(node, m.readClient)
		}
		return doc.Errorf(node, "there is no field %q here; the fields are resources and clients", key)
	})
}

// Read reads a manifest from a file, and then, by fetch, the secrets that it names by URL.
func Read(ctx context.Context, path string, fetch Fetch) (*File, error) {
	data, err := cli.ReadFile(path, yamldoc.MaxSize)
	if err != nil {
		return nil, err
	}
	m, err := Parse(path, data)
	if err != nil {
		return nil, err
	}
	return m, m.fetch(ctx, fetch)
}

// Check returns the error with which an empty registry would refuse the manifest.
func (m *File) Check() error {
	resources, err := registry.NewResources(0, m.Resources)
	if err != nil {
		return m.locate(err)
	}
	for i := range m.Clients {
		if err := m.Clients[i].Check(resources); err != nil {
			return m.locate(&registry.ManifestError{ID: m.Clients[i].ID, Err: err})
		}
	}
	return nil
}

// Apply applies the manifest and calls report for each change, also for those before an error.
func (m *File) Apply(ctx context.Context, editor *registry.Editor, options registry.ApplyOptions, report func(registry.Change)) error {
	changes, err := editor.Apply(ctx, m.Manifest, options)
	for _, change := range changes {
		report(change)
	}
	return m.locate(err)
}

// Position returns file:line of a field of an item, or of the whole item if the field is absent. An item is "client ID" or
// "resource ID". The position of an unknown item is empty.
func (m *File) Position(item, field string) string {
	node := m.place(item, field)
	if node == nil {
		return ""
	}
	return m.doc.Place(node)
}

func (m *File) place(item, field string) *yaml.Node {
	return cmp.Or(m.places[item+" "+field], m.places[item+" "])
}

// locate adds file and line to an error about a client or resource.
func (m *File) locate(err error) error {
	var item string
	var client *registry.ManifestError
	var resource *registry.ResourceError
	switch {
	case errors.As(err, &client):
		item = "client " + client.ID.String()
	case errors.As(err, &resource):
		item = "resource " + resource.ID.String()
	}
	var field *registry.FieldError
	if item == "" || !errors.As(err, &field) {
		return err
	}
	node := m.place(item, field.Field)
	if node == nil {
		return err
	}
	return cli.WithExit(cli.ExitInvalid, m.doc.Errorf(node, "%v", err))
}

// remember records the places of the fields of an item. A duplicate item is an error.
func (m *File) remember(item string, whole *yaml.Node, fields map[string]*yaml.Node) error {
	if first, ok := m.places[item+" "]; ok {
		return m.doc.Errorf(whole, "duplicate %s, first at line %d", item, first.Line)
	}
	m.places[item+" "] = whole
	for field, node := range fields {
		m.places[item+" "+field] = node
	}
	return nil
}
