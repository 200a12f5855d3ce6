package admin_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

// needs maps a method to the scopes that it requires.
var needs = map[string][]string{
	"ClientService/GetClient":          {registry.ScopeClientsRead},
	"ClientService/ListClients":        {registry.ScopeClientsRead},
	"ClientService/CreateClient":       {registry.ScopeClientsWrite},
	"ClientService/UpdateClient":       {registry.ScopeClientsWrite},
	"ClientService/DeleteClient":       {registry.ScopeClientsWrite},
	"ClientService/RevokeTokens":       {registry.ScopeClientsWrite},
	"ClientService/CreateClientSecret": {registry.ScopeClientsWrite},
	"ClientService/RotateClientSecret": {registry.ScopeClientsWrite},
	"ClientService/UpdateClientSecret": {registry.ScopeClientsWrite},
	"ClientService/DeleteClientSecret": {registry.ScopeClientsWrite},
	"ResourceService/GetResource":      {registry.ScopeResourcesRead},
	"ResourceService/ListResources":    {registry.ScopeResourcesRead},
	"ResourceService/CreateResource":   {registry.ScopeResourcesWrite},
	"ResourceService/UpdateResource":   {registry.ScopeResourcesWrite},
	"ResourceService/DeleteResource":   {registry.ScopeResourcesWrite},
	"ResourceService/ApplyManifest":    {registry.ScopeClientsWrite, registry.ScopeResourcesWrite},
	"TrustService/GetTrustedIssuer":    {registry.ScopeTrustRead},
	"TrustService/ListTrustedIssuers":  {registry.ScopeTrustRead},
	"TrustService/CreateTrustedIssuer": all,
	"TrustService/UpdateTrustedIssuer": all,
	"TrustService/DeleteTrustedIssuer": all,
	"TrustService/GetWorkload":         {registry.ScopeTrustRead},
	"TrustService/ListWorkloads":       {registry.ScopeTrustRead},
	"TrustService/CreateWorkload":      {registry.ScopeTrustWrite},
	"TrustService/UpdateWorkload":      {registry.ScopeTrustWrite},
	"TrustService/DeleteWorkload":      {registry.ScopeTrustWrite},
	"KeyService/ListKeys":              {registry.ScopeKeysRead},
	"KeyService/RotateKeys":            {registry.ScopeKeysWrite},
	"KeyService/RetireKey":             {registry.ScopeKeysWrite},
	"KeyService/CompromiseKey":         {registry.ScopeKeysWrite},
}

// TestRules calls every method of the administrative services as every kind of caller.
func TestRules(t *testing.T) {
	f := newFixture(t)
	type caller struct {
		name  string
		ctx   context.Context
		holds []string
		// code is the result of every method. It is OK if the scopes of the caller decide.
		code codes.Code
	}
	callers := []caller{
		{name: "no token", ctx: t.Context(), code: codes.Unauthenticated},
		{name: "a forged token", ctx: bearer(t, f.Forge(t, map[string]any{"aud": registry.AdminResource, "scope": "grantor:clients.read"})), code: codes.Unauthenticated},
		{name: "an expired token", ctx: bearer(t, f.Expired(t, "boss", registry.AdminResource, all...)), code: codes.Unauthenticated},
		{name: "a token for another resource", ctx: bearer(t, f.Token(t, "boss", "https://orders.internal", all...)), code: codes.Unauthenticated},
		{name: "a token without scopes", ctx: f.as(t)},
		{name: "all scopes", ctx: f.as(t, all...), holds: all},
	}
	for i, scope := range all {
		callers = append(callers,
			caller{name: "only " + scope, ctx: f.as(t, scope), holds: []string{scope}},
			caller{name: "all but " + scope, ctx: f.as(t, slices.Delete(slices.Clone(all), i, i+1)...), holds: slices.Delete(slices.Clone(all), i, i+1)})
	}
	methods := 0
	for _, service := range []grpc.ServiceDesc{grantorv1.ClientService_ServiceDesc, grantorv1.ResourceService_ServiceDesc, grantorv1.TrustService_ServiceDesc, grantorv1.KeyService_ServiceDesc} {
		if len(service.Streams) > 0 {
			t.Errorf("%s has streams, which this test does not call", service.ServiceName)
		}
		for _, m := range service.Methods {
			methods++
			name := service.ServiceName + "/" + m.MethodName
			needed, ok := needs[name[len("grantor.v1."):]]
			if !ok {
				t.Errorf("%s is not in the matrix", name)
				continue
			}
			for _, c := range callers {
				got := status.Code(f.call(t, c.ctx, name))
				want := c.code
				if want == codes.OK && slices.ContainsFunc(needed, func(s string) bool { return !slices.Contains(c.holds, s) }) {
					want = codes.PermissionDenied
				}
				// A method that lets the caller through refuses the empty request, or executes it.
				if through := got != codes.Unauthenticated && got != codes.PermissionDenied; got != want && (want != codes.OK || !through) {
					t.Errorf("%s by %s: got %s, want %s", name, c.name, got, want)
				}
			}
		}
	}
	if methods != len(needs) {
		t.Errorf("the matrix has %d methods, the services %d", len(needs), methods)
	}
}

// call makes a call with an empty request.
func (f *fixture) call(t *testing.T, ctx context.Context, name string) error {
	t.Helper()
	return f.conn.Invoke(ctx, "/"+name, message(t, name, true), message(t, name, false))
}

func message(t *testing.T, name string, input bool) proto.Message {
	t.Helper()
	service, method, _ := strings.Cut(name, "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	must.Succeed(t, err)
	m := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
	if input {
		return dynamicpb.NewMessage(m.Input())
	}
	return dynamicpb.NewMessage(m.Output())
}
