package guard_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/interceptors/guard"
	"github.com/grantorhq/grantor/service/must"
)

// grantorSet returns the descriptors of Grantor's own services.
func grantorSet(names ...string) *descriptorpb.FileDescriptorSet {
	set := new(descriptorpb.FileDescriptorSet)
	for _, name := range names {
		file := must.Get(protoregistry.GlobalFiles.FindFileByPath("grantor/v1/" + name + ".proto"))
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	return set
}

// file returns a descriptor of a service with a method, whose options have the encoded rule, or none if it is nil.
func file(name, pkg, service, method string, rule []byte) *descriptorpb.FileDescriptorProto {
	options := new(descriptorpb.MethodOptions)
	if rule != nil {
		encoded := protowire.AppendTag(nil, grantorv1.E_Rule.TypeDescriptor().Number(), protowire.BytesType)
		options.ProtoReflect().SetUnknown(protowire.AppendBytes(encoded, rule))
	}
	return &descriptorpb.FileDescriptorProto{
		Name: proto.String(name), Package: proto.String(pkg),
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String(service), Method: []*descriptorpb.MethodDescriptorProto{{Name: proto.String(method), Options: options}},
		}},
	}
}

func encode(rule *grantorv1.Rule) []byte { return must.Get(proto.Marshal(rule)) }

// describe returns the routes as text.
func describe(all []guard.Route) (texts []string) {
	for _, r := range all {
		texts = append(texts, strings.Join(r.Methods, ",")+" "+r.Path+" "+r.Rule.String()+" ("+r.Source+")")
	}
	return texts
}

// TestDescriptorRoutes reads the rules of Grantor's own services, from a set in which the option was parsed and from one in which
// it was not, and compares them with the option of each method.
func TestDescriptorRoutes(t *testing.T) {
	set := grantorSet("client_service", "token_service", "revocation_service", "stream_service")
	unresolved := new(descriptorpb.FileDescriptorSet)
	must.Succeed(t, proto.UnmarshalOptions{Resolver: new(protoregistry.Types)}.Unmarshal(must.Get(proto.Marshal(set)), unresolved))
	for name, set := range map[string]*descriptorpb.FileDescriptorSet{"resolved": set, "unresolved": unresolved} {
		all, unruled, err := guard.DescriptorRoutes(set)
		if err != nil || len(unruled) > 0 {
			t.Fatalf("%s: %v, %v", name, unruled, err)
		}
		table := must.Get(guard.NewTable(all))
		count := 0
		for _, service := range []protoreflect.FullName{"grantor.v1.ClientService", "grantor.v1.TokenService", "grantor.v1.RevocationService", "grantor.v1.StreamService"} {
			methods := must.Get(protoregistry.GlobalFiles.FindDescriptorByName(service)).(protoreflect.ServiceDescriptor).Methods()
			for i := range methods.Len() {
				count++
				path := "/" + string(service) + "/" + string(methods.Get(i).Name())
				option := proto.GetExtension(methods.Get(i).Options(), grantorv1.E_Rule).(*grantorv1.Rule)
				want := map[bool]string{option.GetAuthenticated(): "authenticated", option.GetPublic(): "public"}[true]
				if scopes := option.GetScopes(); len(scopes) > 0 {
					want = "scopes " + strings.Join(scopes, " ")
				}
				found, err := table.Find("POST", "grantor.example.com", path)
				if err != nil || found.Rule.String() != want {
					t.Errorf("%s: %s: got %v, %v, want %s", name, path, found, err, want)
				}
			}
		}
		if count != len(all) || count < 15 {
			t.Errorf("%s: %d routes for %d methods", name, len(all), count)
		}
	}
}

// TestDescriptorSets reads small sets.
func TestDescriptorSets(t *testing.T) {
	reader := encode(&grantorv1.Rule{Scopes: []string{"orders.read"}})
	located := file("orders.proto", "orders.v1", "Orders", "Get", reader)
	located.SourceCodeInfo = &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
		{Path: []int32{6, 0}, Span: []int32{4, 0, 9}}, {Path: []int32{6, 0, 2, 0}, Span: []int32{6, 2, 8, 3}}, {Path: []int32{6, 0, 2, 0, 4}}, {},
	}}
	twice := file("twice.proto", "a", "S", "M", reader)
	twice.Service = append(twice.GetService(), twice.GetService()[0])
	unknown := protowire.AppendVarint(protowire.AppendTag(slices.Clone(reader), 99, protowire.VarintType), 1)
	for name, test := range map[string]struct {
		files []*descriptorpb.FileDescriptorProto
		want  string // the routes, then the methods without a rule
		err   string
	}{
		"nothing":         {nil, "", ""},
		"nil file":        {[]*descriptorpb.FileDescriptorProto{nil}, "", ""},
		"a rule":          {[]*descriptorpb.FileDescriptorProto{file("orders.proto", "orders.v1", "Orders", "Get", reader)}, "POST /orders.v1.Orders/Get scopes orders.read (orders.proto: /orders.v1.Orders/Get)", ""},
		"a line":          {[]*descriptorpb.FileDescriptorProto{located}, "POST /orders.v1.Orders/Get scopes orders.read (orders.proto:7)", ""},
		"no package":      {[]*descriptorpb.FileDescriptorProto{file("a.proto", "", "S", "M", encode(&grantorv1.Rule{Public: true}))}, "POST /S/M public (a.proto: /S/M)", ""},
		"no rule":         {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", nil)}, "a.S/M", ""},
		"an empty rule":   {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", []byte{})}, "", "a.proto: /a.S/M: option (grantor.v1.rule) must set exactly one"},
		"two kinds":       {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", encode(&grantorv1.Rule{Public: true, Authenticated: true}))}, "", "exactly one"},
		"unknown field":   {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", unknown)}, "", "exactly one"},
		"malformed scope": {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", encode(&grantorv1.Rule{Scopes: []string{"a b"}}))}, "", `the scope "a b"`},
		"garbage":         {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", []byte{0xff})}, "", "a.S/M: "},
		"two services":    {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M", reader), file("b.proto", "a", "S", "N", reader)}, "", `"a.proto" and "b.proto" both have the service "a.S"`},
		"in one file":     {[]*descriptorpb.FileDescriptorProto{twice}, "", `both have the service "a.S"`},
		"a slash":         {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S/T", "M", reader)}, "", "malformed name"},
		"a space":         {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "M x", reader)}, "", "malformed name"},
		"no method name":  {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "S", "", reader)}, "", "malformed name"},
		"no service name": {[]*descriptorpb.FileDescriptorProto{file("a.proto", "a", "", "M", reader)}, "", "malformed name"},
	} {
		all, unruled, err := guard.DescriptorRoutes(&descriptorpb.FileDescriptorSet{File: test.files})
		got := strings.Join(append(describe(all), unruled...), " ")
		if got != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: got %q, %v, want %q, %q", name, got, err, test.want, test.err)
		}
	}
	if all, unruled, err := guard.DescriptorRoutes(nil); all != nil || unruled != nil || err != nil {
		t.Errorf("nil: got %v, %v, %v", all, unruled, err)
	}
}
