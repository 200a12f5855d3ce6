package admin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
	"github.com/grantorhq/grantor/service/must"
	"github.com/grantorhq/grantor/service/registry"
)

const (
	cluster    = "https://kubernetes.default.svc.cluster.local"
	pods       = "k8s:{namespace}:{name}"
	podSubject = "system:serviceaccount:{namespace}:{name}"
)

// newIssuer adds a trusted issuer and the resource that owns api1 and api2.
func (f *fixture) newIssuer(t *testing.T) {
	t.Helper()
	f.newResource(t)
	_, err := f.trust.CreateTrustedIssuer(f.as(t, all...), &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{Issuer: cluster}})
	must.Succeed(t, err)
}

// TestTrustLife takes a trusted issuer and a workload from their creation to their deletion.
func TestTrustLife(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	ctx := f.as(t, all...)
	issuer, err := f.trust.CreateTrustedIssuer(ctx, &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{
		Issuer: cluster, JwksUri: "https://kubernetes.default.svc/openid/v1/jwks", CaFile: "/etc/ca.crt", Audience: []string{"grantor"}, SingleUse: true,
	}})
	must.Succeed(t, err)
	if got := issuer.GetTrustedIssuer(); got.GetId() != cluster || got.GetEtag() == "" || !got.GetSingleUse() {
		t.Errorf("got %v, want it with its id and its etag", got)
	}
	domain, err := f.trust.CreateTrustedIssuer(ctx, &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{
		TrustDomain: "prod.example.com", BundleFile: "/etc/bundle.json",
	}})
	must.Succeed(t, err)
	if got := domain.GetTrustedIssuer().GetId(); got != "spiffe://prod.example.com" {
		t.Errorf("a trust domain: got the id %q", got)
	}
	_, err = f.trust.CreateTrustedIssuer(ctx, &grantorv1.CreateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{Issuer: cluster}})
	refused(t, err, codes.AlreadyExists, "already_exists")
	workload := &grantorv1.Workload{
		ClientId: pods, Issuer: cluster, Subject: podSubject, Claims: map[string]string{"aud/type": "pod"}, Where: map[string]string{"namespace": "shop"}, Scopes: []string{"api1"},
	}
	made, err := f.trust.CreateWorkload(ctx, &grantorv1.CreateWorkloadRequest{Workload: workload})
	must.Succeed(t, err)
	read, err := f.trust.GetWorkload(ctx, &grantorv1.GetWorkloadRequest{ClientId: pods})
	must.Succeed(t, err)
	workload.Etag = made.GetWorkload().GetEtag()
	if !proto.Equal(read.GetWorkload(), workload) || !proto.Equal(made.GetWorkload(), workload) {
		t.Errorf("got %v and %v, want %v", made.GetWorkload(), read.GetWorkload(), workload)
	}
	_, err = f.trust.DeleteTrustedIssuer(ctx, &grantorv1.DeleteTrustedIssuerRequest{Id: cluster})
	refused(t, err, codes.InvalidArgument, "invalid_request")
	changed, err := f.trust.UpdateWorkload(ctx, &grantorv1.UpdateWorkloadRequest{
		Workload:   &grantorv1.Workload{ClientId: pods, Scopes: []string{"api2"}, Etag: workload.GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"scopes", "where"}},
	})
	must.Succeed(t, err)
	if got := changed.GetWorkload(); got.GetScopes()[0] != "api2" || len(got.GetWhere()) != 0 || got.GetSubject() != podSubject || got.GetEtag() == workload.GetEtag() {
		t.Errorf("got %v, want other scopes, no where, the rest as it was and another etag", got)
	}
	_, err = f.trust.UpdateWorkload(ctx, &grantorv1.UpdateWorkloadRequest{Workload: workload})
	refused(t, err, codes.Aborted, "conflict")
	_, err = f.trust.DeleteWorkload(ctx, &grantorv1.DeleteWorkloadRequest{ClientId: pods, Etag: workload.GetEtag()})
	refused(t, err, codes.Aborted, "conflict")
	_, err = f.trust.DeleteWorkload(ctx, &grantorv1.DeleteWorkloadRequest{ClientId: pods})
	must.Succeed(t, err)
	_, err = f.trust.UpdateTrustedIssuer(ctx, &grantorv1.UpdateTrustedIssuerRequest{TrustedIssuer: &grantorv1.TrustedIssuer{Id: cluster, JwksUri: "https://keys.example"}})
	must.Succeed(t, err)
	got, err := f.trust.GetTrustedIssuer(ctx, &grantorv1.GetTrustedIssuerRequest{Id: cluster})
	must.Succeed(t, err)
	if i := got.GetTrustedIssuer(); i.GetJwksUri() != "https://keys.example" || i.GetCaFile() != "/etc/ca.crt" || i.GetIssuer() != cluster {
		t.Errorf("got %v, want another jwks_uri and the rest as it was", i)
	}
	_, err = f.trust.DeleteTrustedIssuer(ctx, &grantorv1.DeleteTrustedIssuerRequest{Id: cluster})
	must.Succeed(t, err)
	_, err = f.trust.GetTrustedIssuer(ctx, &grantorv1.GetTrustedIssuerRequest{Id: cluster})
	refused(t, err, codes.NotFound, "not_found")
	_, err = f.trust.GetWorkload(ctx, &grantorv1.GetWorkloadRequest{ClientId: pods})
	refused(t, err, codes.NotFound, "not_found")
}

// TestTrustRefusals has one case for each defect of a request about trusted issuers and workloads, on both wires.
func TestTrustRefusals(t *testing.T) {
	f := newFixture(t)
	f.newIssuer(t)
	f.rest(t, http.MethodPost, "/v1/workloads", `{"client_id":"`+pods+`","issuer":"`+cluster+`","subject":"`+podSubject+`"}`)
	many := make([]string, 0, 10_000)
	for i := range cap(many) {
		many = append(many, fmt.Sprintf(`"c%d":"x"`, i))
	}
	issuer, workload := "/v1/trusted-issuers", "/v1/workloads"
	for _, c := range []struct{ name, path, body, want string }{
		{"nothing", issuer, `{}`, "set one of issuer and trust_domain"},
		{"two names", issuer, `{"issuer":"https://a.example","trust_domain":"a.example"}`, "set one of issuer and trust_domain"},
		{"http", issuer, `{"issuer":"http://a.example"}`, "issuer: is not an https URL"},
		{"a name with quotes and a line break", issuer, `{"issuer":"https://a.example/\"\nx"}`, "issuer"},
		{"keys in two ways", issuer, `{"issuer":"https://a.example","jwks_uri":"https://a.example/k","jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}}`, "jwks_uri"},
		{"a private key", issuer, `{"issuer":"https://a.example","jwks":{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}}`, "jwks"},
		{"a key set that is none", issuer, `{"issuer":"https://a.example","jwks":{}}`, "jwks"},
		{"a relative file", issuer, `{"issuer":"https://a.example","ca_file":"../../etc/passwd"}`, "ca_file"},
		{"a file out of its place", issuer, `{"issuer":"https://a.example","bearer_token_file":"/run/../etc/passwd"}`, "bearer_token_file"},
		{"a bundle of an issuer", issuer, `{"issuer":"https://a.example","bundle_file":"/a"}`, "bundle_file"},
		{"no bundle", issuer, `{"trust_domain":"a.example"}`, "bundle_endpoint"},
		{"two bundles", issuer, `{"trust_domain":"a.example","bundle_file":"/a","workload_api":"unix:///a"}`, "bundle_endpoint"},
		{"a domain that is none", issuer, `{"trust_domain":"A b","bundle_file":"/a"}`, "trust_domain"},
		{"a file outside trust-directories", issuer, `{"issuer":"https://a.example","ca_file":"/run/ca.crt"}`, "ca_file: is below no directory that the setting trust-directories of this issuer names"},
		{"a token outside trust-directories", issuer, `{"issuer":"https://a.example","ca_file":"/etc/ca.crt","bearer_token_file":"/etcetera/token"}`, "bearer_token_file: is below no directory"},
		{"a bundle outside trust-directories", issuer, `{"trust_domain":"a.example","bundle_file":"/run/bundle"}`, "bundle_file: is below no directory"},
		{"a socket outside trust-directories", issuer, `{"trust_domain":"a.example","workload_api":"unix:///run/agent.sock"}`, "workload_api: is below no directory"},
		{"an id of its own", issuer, `{"id":"x"}`, "set one of issuer and trust_domain"},
		{"audiences without end", issuer, `{"issuer":"https://a.example","audience":["1","2","3","4","5","6","7","8","9"]}`, "audience"},

		{"no rule", workload, `{"client_id":"a"}`, "issuer"},
		{"no client", workload, `{"issuer":"` + cluster + `","subject":"a"}`, "client_id"},
		{"an issuer that is not trusted", workload, `{"client_id":"a","issuer":"https://b.example","subject":"a"}`, "is not a trusted issuer"},
		{"no subject", workload, `{"client_id":"a","issuer":"` + cluster + `"}`, "subject"},
		{"a part of a segment", workload, `{"client_id":"a","issuer":"` + cluster + `","subject":"a*"}`, "subject"},
		{"a capture of nothing", workload, `{"client_id":"a:{b}","issuer":"` + cluster + `","subject":"a"}`, "client_id"},
		{"any client", workload, `{"client_id":"a:*","issuer":"` + cluster + `","subject":"a:*"}`, "client_id"},
		{"where nothing is captured", workload, `{"client_id":"a","issuer":"` + cluster + `","subject":"a","where":{"b":"c"}}`, "where"},
		{"a scope of nothing", workload, `{"client_id":"a","issuer":"` + cluster + `","subject":"a","scopes":["nope"]}`, "belongs to no resource"},
		{"a default beyond the scopes", workload, `{"client_id":"a","issuer":"` + cluster + `","subject":"a","default_scopes":["api1"]}`, "default_scopes"},
		{"a lifetime that is too long", workload, `{"client_id":"a","issuer":"` + cluster + `","subject":"a","access_token_lifetime":"25h"}`, "access_token_lifetime"},
		{"claims without end", workload, `{"client_id":"a","issuer":"` + cluster + `","claims":{` + strings.Join(many[:17], ",") + `}}`, "claims"},
		{"a claim of another type", workload, `{"client_id":"a","issuer":"` + cluster + `","claims":{"a":1}}`, "isnotofitstype"},
		{"an empty claim", workload, `{"client_id":"a","issuer":"` + cluster + `","claims":{"a":""}}`, "claims"},
		{"a claim with a line break", workload, `{"client_id":"a","issuer":"` + cluster + `","claims":{"a":"b\nc"}}`, "claims"},
		{"identities of another workload", workload, `{"client_id":"other:{n}","issuer":"` + cluster + `","subject":"system:serviceaccount:shop:{n}"}`, "subject: an identity may match the workload"},
		{"clients of another workload", workload, `{"client_id":"k8s:a:b","issuer":"` + cluster + `","subject":"a"}`, "client_id: a client ID may be of the workload"},
		{"a trust domain that is captured", workload, `{"client_id":"a:{d}","spiffe_id":"spiffe://{d}/x"}`, "spiffe_id"},
		{"two kinds of rule", workload, `{"client_id":"a","issuer":"` + cluster + `","subject":"a","spiffe_id":"spiffe://a/b"}`, "spiffe_id"},
		{"an unknown field", workload, `{"client_id":"a","subjects":"a"}`, "thereisnofieldsubjects"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := f.rest(t, http.MethodPost, c.path, c.body)
			if got.status != http.StatusBadRequest || !strings.Contains(strings.ReplaceAll(got.body, " ", ""), strings.ReplaceAll(c.want, " ", "")) || strings.Contains(got.body, "\n") {
				t.Errorf("got %d %q, want 400 with %q", got.status, got.body, c.want)
			}
		})
	}
	if got := f.rest(t, http.MethodPost, workload, `{"client_id":"a","issuer":"`+cluster+`","claims":{`+strings.Join(many, ",")+`}}`); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("10,000 claims over REST: got %d %.200s, want 413", got.status, got.body)
	}
	claims := make(map[string]string, len(many))
	for i := range many {
		claims[fmt.Sprint(i)] = "x"
	}
	_, err := f.trust.CreateWorkload(f.as(t, all...), &grantorv1.CreateWorkloadRequest{Workload: &grantorv1.Workload{ClientId: "a", Issuer: cluster, Claims: claims}})
	if refused(t, err, codes.InvalidArgument, "invalid_request"); !strings.Contains(status.Convert(err).Message(), "claims: has more than 16") {
		t.Errorf("10,000 claims over gRPC: got %v", err)
	}
}

// TestTrustREST administers trusted issuers and workloads over REST.
func TestTrustREST(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	issuer := "/v1/trusted-issuers/" + url.PathEscape(cluster)
	domain := "/v1/trusted-issuers/" + url.PathEscape("spiffe://prod.example.com")
	workload := "/v1/workloads/" + url.PathEscape(pods)
	for _, step := range []struct {
		name, method, path, body string
		status                   int
		has                      string
	}{
		{"an issuer", http.MethodPost, "/v1/trusted-issuers", `{"issuer":"` + cluster + `","audience":["grantor"]}`, 200, `"id":"` + cluster + `"`},
		{"it again", http.MethodPost, "/v1/trusted-issuers", `{"issuer":"` + cluster + `"}`, 409, `"error":"already_exists"`},
		{"read it", http.MethodGet, issuer, "", 200, `"audience":["grantor"]`},
		{"change it", http.MethodPatch, issuer, `{"single_use":true}`, 200, `"single_use":true`},
		{"and not its name", http.MethodPatch, issuer, `{"issuer":"https://b.example"}`, 200, `"issuer":"` + cluster + `"`},
		{"clear a field", http.MethodPatch, issuer, `{"audience":[]}`, 200, `"single_use":true`},
		{"a trust domain", http.MethodPost, "/v1/trusted-issuers", `{"trust_domain":"prod.example.com","bundle_endpoint":"https://spire.example.com/bundle"}`, 200, `"id":"spiffe://prod.example.com"`},
		{"read that", http.MethodGet, domain, "", 200, `"trust_domain":"prod.example.com"`},
		{"a workload", http.MethodPost, "/v1/workloads", `{"client_id":"` + pods + `","issuer":"` + cluster + `","subject":"` + podSubject + `","scopes":["api1"],"access_token_lifetime":"10m"}`, 200, `"access_token_lifetime":"600s"`},
		{"read it", http.MethodGet, workload, "", 200, `"subject":"` + podSubject + `"`},
		{"where", http.MethodPatch, workload, `{"where":{"namespace":"shop"}}`, 200, `"where":{"namespace":"shop"}`},
		{"its claims", http.MethodPatch, workload, `{"claims":{"value":"a","key":"b"}}`, 200, `"claims":{"key":"b","value":"a"}`},
		{"a client of it", http.MethodPost, "/v1/clients", `{"client_id":"orders","scopes":["api1"],"federation":[{"issuer":"` + cluster + `","claims":{"key":"c"}},{"spiffe_id":"spiffe://prod.example.com/a"}],"without_secret":true}`, 200, `"federation":[{`},
		{"a rule that is none", http.MethodPatch, "/v1/clients/orders", `{"federation":[{"issuer":"` + cluster + `"}]}`, 400, "federation"},
		{"an unknown member of a rule", http.MethodPatch, "/v1/clients/orders", `{"federation":[{"iss":"x"}]}`, 400, "iss"},
		{"the client with its rules", http.MethodGet, "/v1/clients/orders", "", 200, `{"spiffe_id":"spiffe://prod.example.com/a"}`},
		{"list", http.MethodGet, "/v1/trusted-issuers?page_size=1", "", 200, `"next_page_token":"`},
		{"list", http.MethodGet, "/v1/workloads", "", 200, `"workloads":[{`},
		{"an old state", http.MethodDelete, workload + "?etag=1", "", 409, `"error":"conflict"`},
		{"an issuer that has a workload", http.MethodDelete, issuer, "", 400, `"error":"invalid_request"`},
		{"delete", http.MethodDelete, workload, "", 200, ""},
		{"deleted", http.MethodGet, workload, "", 404, `"error":"not_found"`},
		{"delete", http.MethodDelete, issuer, "", 200, ""},
		{"no such method", http.MethodPut, issuer, "", 405, `"error":"invalid_request"`},
		{"no such path", http.MethodGet, "/v1/trust", "", 404, `"error":"invalid_request"`},
	} {
		got := f.rest(t, step.method, step.path, step.body)
		if got.status != step.status || !strings.Contains(strings.ReplaceAll(got.body, " ", ""), step.has) {
			t.Errorf("%s: got %d %s, want %d with %s", step.name, got.status, got.body, step.status, step.has)
		}
	}
}

// TestTrustPages lists workloads by pages, in the order of their ids.
func TestTrustPages(t *testing.T) {
	f := newFixture(t)
	f.newIssuer(t)
	ctx := f.as(t, all...)
	var want, got []string
	for _, id := range []string{"c", "a", "e", "b", "d"} {
		want = append(want, id)
		_, err := f.trust.CreateWorkload(ctx, &grantorv1.CreateWorkloadRequest{Workload: &grantorv1.Workload{ClientId: id, Issuer: cluster, Subject: id}})
		must.Succeed(t, err)
	}
	slices.Sort(want)
	for token, more := "", true; more; more = token != "" {
		page, err := f.trust.ListWorkloads(ctx, &grantorv1.ListWorkloadsRequest{PageSize: 2, PageToken: token})
		must.Succeed(t, err)
		for _, w := range page.GetWorkloads() {
			got = append(got, w.GetClientId())
		}
		if token = page.GetNextPageToken(); token != "" {
			_, err := f.trust.ListTrustedIssuers(ctx, &grantorv1.ListTrustedIssuersRequest{PageToken: token})
			refused(t, err, codes.InvalidArgument, "invalid_request")
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTrustAuthority checks that no administrator grants by a workload what it may not grant to a client.
func TestTrustAuthority(t *testing.T) {
	f := newFixture(t)
	f.newIssuer(t)
	ctx := f.as(t, registry.ScopeTrustRead, registry.ScopeTrustWrite)
	_, err := f.trust.CreateWorkload(ctx, &grantorv1.CreateWorkloadRequest{Workload: &grantorv1.Workload{
		ClientId: "a", Issuer: cluster, Subject: "a", Scopes: []string{registry.ScopeClientsWrite},
	}})
	refused(t, err, codes.PermissionDenied, "insufficient_scope")
	_, err = f.trust.CreateWorkload(f.as(t, all...), &grantorv1.CreateWorkloadRequest{Workload: &grantorv1.Workload{
		ClientId: "a", Issuer: cluster, Subject: "a", Scopes: []string{registry.ScopeClientsWrite},
	}})
	must.Succeed(t, err)
	_, err = f.trust.UpdateWorkload(ctx, &grantorv1.UpdateWorkloadRequest{Workload: &grantorv1.Workload{ClientId: "a", Subject: "b"}})
	refused(t, err, codes.PermissionDenied, "insufficient_scope")
}

// TestApplyTrust applies manifests with trusted issuers and workloads.
func TestApplyTrust(t *testing.T) {
	f := newFixture(t)
	f.newResource(t)
	withoutTrust := f.as(t, registry.ScopeClientsWrite, registry.ScopeResourcesWrite)
	wanted := &grantorv1.ApplyManifestRequest{
		TrustedIssuers: []*grantorv1.TrustedIssuer{{Issuer: cluster}},
		Workloads:      []*grantorv1.Workload{{ClientId: pods, Issuer: cluster, Subject: podSubject, Scopes: []string{"api1"}}},
	}
	_, err := f.resources.ApplyManifest(withoutTrust, &grantorv1.ApplyManifestRequest{PruneTrust: true})
	must.Succeed(t, err) // there is nothing to remove
	_, err = f.resources.ApplyManifest(withoutTrust, wanted)
	refused(t, err, codes.PermissionDenied, "insufficient_scope")
	ctx := f.as(t, all...)
	for _, want := range []string{"created", "unchanged"} {
		answer, err := f.resources.ApplyManifest(ctx, wanted)
		must.Succeed(t, err)
		if got := actions(answer); got != want+" trusted_issuer "+cluster+", "+want+" workload "+pods {
			t.Errorf("got %s, want both %s", got, want)
		}
	}
	_, err = f.resources.ApplyManifest(withoutTrust, &grantorv1.ApplyManifestRequest{PruneTrust: true})
	refused(t, err, codes.PermissionDenied, "insufficient_scope")
	if answer := must.Get(f.resources.ApplyManifest(ctx, &grantorv1.ApplyManifestRequest{})); actions(answer) != "" {
		t.Errorf("a manifest without them: got %s, want that they stay", actions(answer))
	}
	answer, err := f.resources.ApplyManifest(ctx, &grantorv1.ApplyManifestRequest{PruneTrust: true})
	must.Succeed(t, err)
	if got := actions(answer); !strings.Contains(got, "removed trusted_issuer "+cluster) || !strings.Contains(got, "removed workload "+pods) {
		t.Errorf("got %s, want both removed", got)
	}
	for name, m := range map[string]*grantorv1.ApplyManifestRequest{
		"trusted_issuer https://x.example: ": {TrustedIssuers: []*grantorv1.TrustedIssuer{{Issuer: "https://x.example", BundleFile: "/a"}}},
		`trusted_issuer "a\"\nb": `:          {TrustedIssuers: []*grantorv1.TrustedIssuer{{Issuer: "a\"\nb"}}},
		`workload "a\nb": `:                  {Workloads: []*grantorv1.Workload{{ClientId: "a\nb"}}},
		"there are more than 1000":           {TrustedIssuers: wanted.GetTrustedIssuers(), Workloads: numbered(1001)},
		"client b: federation[1]: an identity may match the client a too": {TrustedIssuers: wanted.GetTrustedIssuers(), Clients: []*grantorv1.WantedClient{
			federated("a", "x", "z"), federated("b", "y", "z"),
		}},
	} {
		if _, err := f.resources.ApplyManifest(ctx, m); status.Code(err) != codes.InvalidArgument || !strings.Contains(status.Convert(err).Message(), name) {
			t.Errorf("got %v, want invalid_request with %s", err, name)
		}
	}
}

func actions(answer *grantorv1.ApplyManifestResponse) string {
	var all []string
	for _, c := range answer.GetChanges() {
		all = append(all, c.GetAction()+" "+c.GetKind()+" "+c.GetId())
	}
	return strings.Join(all, ", ")
}

func numbered(n int) []*grantorv1.Workload {
	list := make([]*grantorv1.Workload, n)
	for i := range list {
		list[i] = &grantorv1.Workload{ClientId: fmt.Sprint(i), Issuer: cluster, Subject: fmt.Sprint(i)}
	}
	return list
}

func federated(id string, subjects ...string) *grantorv1.WantedClient {
	c := &grantorv1.Client{ClientId: id}
	for _, subject := range subjects {
		c.Federation = append(c.Federation, &grantorv1.FederationRule{Issuer: cluster, Subject: subject})
	}
	return &grantorv1.WantedClient{Client: c}
}
