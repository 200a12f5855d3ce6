// Package registrypb converts between package registry and the messages of grantor.v1 that represent its types. It only
// converts, and decides nothing: the fields of a message are those of [registry.ClientFields], [registry.ResourceFields],
// [registry.IssuerFields] and [registry.WorkloadFields], found by name, so that a new field needs no line here.
package registrypb

import (
	"bytes"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/clientsecret"
	"github.com/grantorhq/grantor/service/oauth"
	"github.com/grantorhq/grantor/service/registry"
	"github.com/grantorhq/grantor/service/trust"
)

// FromClient returns the message that shows a client to an administrator. It contains neither a secret nor a hash. uses are
// the last uses of the client's secrets by ID.
func FromClient(c *registry.Client, uses map[string]time.Time) *grantorv1.Client {
	m := &grantorv1.Client{
		ClientId: c.ID.String(), CreateTime: FromTime(c.CreatedAt), UpdateTime: FromTime(c.ChangedAt), Etag: c.ETag(),
	}
	setFields(m, registry.ClientFields(), c)
	for i := range c.Secrets {
		s := &c.Secrets[i]
		m.Secrets = append(m.Secrets, &grantorv1.ClientSecret{
			SecretId: s.ID, Kind: kinds[s.Hash.Kind()], CreateTime: FromTime(s.CreatedAt), ExpireTime: FromTime(s.ExpiresAt),
			LastUseTime: FromTime(s.LastUse(uses)),
		})
	}
	return m
}

// kinds maps each kind of hash to its value in messages.
var kinds = map[clientsecret.Kind]grantorv1.ClientSecret_Kind{
	clientsecret.KindGenerated: grantorv1.ClientSecret_KIND_GENERATED,
	clientsecret.KindChosen:    grantorv1.ClientSecret_KIND_CHOSEN,
	clientsecret.KindImported:  grantorv1.ClientSecret_KIND_IMPORTED,
}

// ToClient returns the client that a message represents, with its ID and the fields that an administrator can set. It
// ignores fields that are output only. If a field is not valid by itself, the error is a [registry.FieldError].
func ToClient(m *grantorv1.Client) (*registry.Client, error) {
	id, err := oauth.ParseClientID(m.GetClientId())
	if err != nil {
		return nil, err
	}
	c := &registry.Client{ID: id}
	return c, readFields(c, registry.ClientFields(), m)
}

// FromResource returns the message that represents a resource.
func FromResource(r *registry.Resource) *grantorv1.Resource {
	m := &grantorv1.Resource{Resource: r.ID.String(), Etag: r.ETag()}
	setFields(m, registry.ResourceFields(), r)
	return m
}

// ToResource returns the resource that a message represents. If a field is not valid by itself, the error is a
// [registry.FieldError].
func ToResource(m *grantorv1.Resource) (*registry.Resource, error) {
	id, err := oauth.ParseResource(m.GetResource())
	if err != nil {
		return nil, err
	}
	r := &registry.Resource{ID: id}
	return r, readFields(r, registry.ResourceFields(), m)
}

// FromIssuer returns the message that represents a trusted issuer.
func FromIssuer(i *trust.Issuer) *grantorv1.TrustedIssuer {
	m := &grantorv1.TrustedIssuer{Id: i.ID(), Issuer: i.Issuer, TrustDomain: i.TrustDomain, Etag: i.ETag()}
	setFields(m, registry.IssuerFields(), i)
	return m
}

// ToIssuer returns the trusted issuer that a message represents. If a field is not valid by itself, the error is a
// [registry.FieldError].
func ToIssuer(m *grantorv1.TrustedIssuer) (*trust.Issuer, error) {
	i := &trust.Issuer{Issuer: m.GetIssuer(), TrustDomain: m.GetTrustDomain()}
	return i, readFields(i, registry.IssuerFields(), m)
}

// FromWorkload returns the message that represents a workload.
func FromWorkload(w *trust.Workload) *grantorv1.Workload {
	m := &grantorv1.Workload{ClientId: w.ClientID.String(), Etag: w.ETag()}
	setFields(m, registry.WorkloadFields(), w)
	return m
}

// ToWorkload returns the workload that a message represents. If a field is not valid by itself, the error is a
// [registry.FieldError].
func ToWorkload(m *grantorv1.Workload) (*trust.Workload, error) {
	id, err := trust.ParsePattern(m.GetClientId())
	if err != nil {
		return nil, &registry.FieldError{Field: "client_id", Problem: err.Error()}
	}
	w := &trust.Workload{ClientID: id}
	return w, readFields(w, registry.WorkloadFields(), m)
}

// FromSpec returns the message that represents a client of a manifest.
func FromSpec(s *registry.ClientSpec) *grantorv1.WantedClient {
	client := &grantorv1.Client{ClientId: s.ID.String()}
	setFields(client, registry.ClientFields(), &s.Client)
	if s.LeaveDisabled {
		client.Disabled = nil
	}
	m := &grantorv1.WantedClient{Client: client, ClientSecret: s.Secret}
	for _, hash := range s.Hashes {
		m.ClientSecretHashes = append(m.ClientSecretHashes, string(hash))
	}
	return m
}

// ToSpec returns the client of a manifest that a message represents.
func ToSpec(m *grantorv1.WantedClient) (*registry.ClientSpec, error) {
	c, err := ToClient(m.GetClient())
	if err != nil {
		return nil, err
	}
	s := &registry.ClientSpec{Client: *c, Secret: m.GetClientSecret(), LeaveDisabled: m.GetClient().Disabled == nil}
	for _, text := range m.GetClientSecretHashes() {
		hash, err := clientsecret.ParseImported(text)
		if err != nil {
			return nil, &registry.ManifestError{ID: c.ID, Err: &registry.FieldError{Field: "client_secret_hashes", Problem: err.Error()}}
		}
		s.Hashes = append(s.Hashes, hash)
	}
	return s, nil
}

// ToManifest returns the manifest that a request contains.
func ToManifest(m *grantorv1.ApplyManifestRequest) (*registry.Manifest, error) {
	manifest := &registry.Manifest{}
	for _, sent := range m.GetResources() {
		resource, err := ToResource(sent)
		if err != nil {
			return nil, err
		}
		manifest.Resources = append(manifest.Resources, *resource)
	}
	for _, sent := range m.GetTrustedIssuers() {
		issuer, err := ToIssuer(sent)
		if err != nil {
			return nil, &trust.EntryError{Kind: trust.KindIssuer, ID: issuer.ID(), Err: err}
		}
		manifest.Issuers = append(manifest.Issuers, *issuer)
	}
	for _, sent := range m.GetWorkloads() {
		workload, err := ToWorkload(sent)
		if err != nil {
			return nil, &trust.EntryError{Kind: trust.KindWorkload, ID: sent.GetClientId(), Err: err}
		}
		manifest.Workloads = append(manifest.Workloads, *workload)
	}
	for _, sent := range m.GetClients() {
		spec, err := ToSpec(sent)
		if err != nil {
			return nil, err
		}
		manifest.Clients = append(manifest.Clients, *spec)
	}
	return manifest, nil
}

// setFields sets the fields of a message from those of t.
func setFields[T any](m proto.Message, fields []registry.Field[T], t *T) {
	for i := range fields {
		SetField(m, fields[i].Name, fields[i].Get(t))
	}
}

// SetField sets a field of a message that represents an entry of the registry to a value of the type that
// [registry.Field.Get] returns.
func SetField(message proto.Message, name string, value any) {
	m := message.ProtoReflect()
	field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch value := value.(type) {
	case string:
		m.Set(field, protoreflect.ValueOfString(value))
	case bool:
		m.Set(field, protoreflect.ValueOfBool(value))
	case time.Duration:
		if m.Clear(field); value != 0 {
			m.Set(field, protoreflect.ValueOfMessage(durationpb.New(value).ProtoReflect()))
		}
	case time.Time:
		if m.Clear(field); !value.IsZero() {
			m.Set(field, protoreflect.ValueOfMessage(timestamppb.New(value).ProtoReflect()))
		}
	case json.RawMessage:
		if m.Clear(field); len(value) > 0 {
			setMessages(m, field, value)
		}
	case map[string]string:
		m.Clear(field)
		for name, text := range value {
			m.Mutable(field).Map().Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(text))
		}
	case []string:
		list := m.NewField(field).List()
		for _, text := range value {
			list.Append(protoreflect.ValueOfString(text))
		}
		m.Set(field, protoreflect.ValueOfList(list))
	}
}

// setMessages sets a field that is a message or a list of messages. The JSON is from the registry, which has parsed it.
func setMessages(m protoreflect.Message, field protoreflect.FieldDescriptor, value json.RawMessage) {
	if !field.IsList() {
		inner := m.NewField(field)
		if protojson.Unmarshal(value, inner.Message().Interface()) == nil {
			m.Set(field, inner)
		}
		return
	}
	var elements []json.RawMessage
	if json.Unmarshal(value, &elements) != nil {
		return
	}
	for _, element := range elements {
		inner := m.Mutable(field).List().NewElement()
		if protojson.Unmarshal(element, inner.Message().Interface()) == nil {
			m.Mutable(field).List().Append(inner)
		}
	}
}

// FieldText returns the value of a field of a message that represents an entry of the registry, as [registry.Field.Text]
// formats it.
func FieldText(m proto.Message, name string) string {
	value, err := fieldValue(m, name)
	if err != nil {
		return err.Error() // it is shown to people
	}
	return registry.FormatValue(value)
}

// readFields sets the fields of t from those of a message.
func readFields[T any](t *T, fields []registry.Field[T], m proto.Message) error {
	for i := range fields {
		value, err := fieldValue(m, fields[i].Name)
		if err != nil {
			return err
		}
		if err := fields[i].Set(t, value); err != nil {
			return err
		}
	}
	return nil
}

// fieldValue returns the value of a field of a message, of a type that [registry.Field.Set] accepts.
func fieldValue(message proto.Message, name string) (any, error) {
	m := message.ProtoReflect()
	field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	switch value := m.Get(field).Interface().(type) {
	case protoreflect.Map:
		texts := make(map[string]string, value.Len())
		for name, text := range value.Range {
			texts[name.String()] = text.String()
		}
		return texts, nil
	case protoreflect.List:
		if field.Message() != nil {
			return messageValues(name, value)
		}
		texts := make([]string, value.Len())
		for i := range texts {
			texts[i] = value.Get(i).String()
		}
		return texts, nil
	case protoreflect.Message:
		return messageValue(name, value.Interface(), m.Has(field))
	default:
		return value, nil
	}
}

// messageValues returns the value of a field that is a list of messages.
func messageValues(name string, list protoreflect.List) (any, error) {
	if list.Len() == 0 {
		return json.RawMessage(nil), nil
	}
	elements := make([]json.RawMessage, list.Len())
	for i := range elements {
		data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(list.Get(i).Message().Interface())
		if err != nil {
			return nil, &registry.FieldError{Field: name, Problem: "is not JSON"}
		}
		elements[i] = data
	}
	data, err := json.Marshal(elements)
	return json.RawMessage(data), err
}

// messageValue returns the value of a field that is a message; the zero value of its type if it is not set.
func messageValue(name string, value proto.Message, set bool) (any, error) {
	switch value := value.(type) {
	case *durationpb.Duration:
		if !set {
			value = nil
		}
		return ToDuration(name, value)
	case *timestamppb.Timestamp:
		switch {
		case !set:
			return time.Time{}, nil
		case value.CheckValid() != nil:
			return nil, &registry.FieldError{Field: name, Problem: "is not a time"}
		}
		return value.AsTime(), nil
	default:
		if !set {
			return json.RawMessage(nil), nil
		}
		data, err := protojson.Marshal(value)
		var compact bytes.Buffer
		if err == nil {
			err = json.Compact(&compact, data) // protojson varies the white space
		}
		if err != nil {
			return nil, &registry.FieldError{Field: name, Problem: "is not JSON"}
		}
		return json.RawMessage(compact.Bytes()), nil
	}
}

// ToDuration returns a duration in whole seconds; nil is zero.
func ToDuration(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil || d.GetNanos() != 0 {
		return 0, &registry.FieldError{Field: field, Problem: "is not a number of whole seconds"}
	}
	return d.AsDuration(), nil
}

// FromTime returns a timestamp; nil for the zero time.
func FromTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
