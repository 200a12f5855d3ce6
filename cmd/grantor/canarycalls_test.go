package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/grantorhq/grantor/cmd/grantor/servetest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// send makes a call over REST and returns its response.
func (s *leakTest) send(method, path, body string, headers ...string) (int, string) {
	s.t.Helper()
	source := s.pace()
	request, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.HTTPAddr()+path, strings.NewReader(body))
	s.must(err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	request.Header.Set("X-Forwarded-For", source)
	answer, err := s.client.Do(request)
	s.must(err)
	text := servetest.ReadBody(s.t, answer)
	if answer.StatusCode != http.StatusOK {
		fmt.Fprintln(&s.answers, method, answer.Status, answer.Header, text)
	}
	return answer.StatusCode, text
}

// post sends a form.
func (s *leakTest) post(path string, form url.Values, headers ...string) (int, string) {
	s.t.Helper()
	return s.send(http.MethodPost, path, form.Encode(), append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
}

// token requests a token and adds it to the canaries.
func (s *leakTest) token(id, secret string) string {
	s.t.Helper()
	status, body := s.post("/connect/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}})
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Token == "" {
		s.t.Fatalf("%s: got %d %s, want a token", id, status, body)
	}
	s.add("the token of "+id, answer.Token)
	s.add("the signature of the token of "+id, answer.Token[strings.LastIndex(answer.Token, ".")+1:])
	return answer.Token
}

// overConnect makes clients authenticate by Connect and gRPC-Web, with valid and invalid credentials, in messages that cannot be
// read too.
func (s *leakTest) overConnect() {
	wrong := canary("wrong")
	for _, method := range []string{"IssueToken", "IntrospectTokens", "RevokeToken"} {
		path := "/grantor.v1.TokenService/" + method
		for _, body := range []string{
			`{"grantType":"client_credentials","clientId":"in-file","clientSecret":"` + wrong + `","token":"` + wrong + `","tokens":["` + wrong + `"]}`,
			`{"clientSecret":["` + wrong + `"]}`, `{"clientSecret":{"` + wrong + `":1}}`, `{"clientSecret":"` + wrong + `"`, `{"clientSecret":"` + wrong + `","client_secret":"` + wrong + `"}`,
			`{"` + wrong + `":"a"}`, `{"` + wrong + `"}`, `"` + wrong + `"`, wrong, `{"clientAssertion":"` + wrong + `","token":"` + wrong + `"}`,
			`{"clientSecret":"` + wrong + `\u0000"}`, "{\"clientSecret\":\"" + wrong + "\xff\"}", `{"clientSecret":"` + strings.Repeat(wrong, 2000) + `"}`,
		} {
			for _, mediaType := range []string{"application/json", "application/proto", "application/grpc-web+json", wrong, "application/json; charset=" + wrong} {
				s.send(http.MethodPost, path, body, "Content-Type", mediaType)
				s.send(http.MethodPost, path, "\x00\x00\x00\x00"+string(rune(len(body)%128))+body, "Content-Type", mediaType)
			}
		}
		for _, header := range []string{"Authorization", "DPoP", "Connect-Timeout-Ms", "Connect-Protocol-Version", "Content-Encoding", "Grpc-Encoding", "Grpc-Timeout"} {
			s.send(http.MethodPost, path+"?client_secret="+wrong, "{}", "Content-Type", "application/json", header, wrong)
			s.send(http.MethodPost, path, "\x00\x00\x00\x00\x00", "Content-Type", "application/grpc-web+proto", header, wrong)
		}
		s.send(http.MethodPost, path, "{}", "Content-Type", "application/json", "Authorization", basic("in-file", wrong))
	}
	_, body := s.send(http.MethodPost, "/grantor.v1.TokenService/IssueToken",
		`{"grantType":"client_credentials","clientId":"in-file","clientSecret":"`+canary("in-file")+`"}`, "Content-Type", "application/json")
	var answer struct {
		Token string `json:"accessToken"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Token == "" {
		s.t.Fatalf("got %s, want a token", body)
	}
	s.add("the token by Connect", answer.Token)
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// overREST makes clients authenticate over REST in every form, with valid and invalid credentials.
func (s *leakTest) overREST() {
	good := s.token("in-file", canary("in-file"))
	s.token("in-env", canary("in-env"))
	s.token("in-another-file", canary("in-another-file"))
	s.token("imported", canary("imported"))
	wrong := canary("wrong")
	for _, path := range []string{"/connect/token", "/connect/introspect", "/connect/revoke"} {
		for _, form := range []url.Values{
			{"client_id": {"in-file"}, "client_secret": {wrong}},
			{"client_id": {"nobody"}, "client_secret": {wrong}},
			{"client_id": {"in-file"}, "client_secret": {wrong, wrong}},
			{"client_id": {"in-file"}, "client_secret": {strings.Repeat(wrong, 100)}},
			{"client_id": {"in-file"}, "client_secret": {wrong + "\x00"}},
			{"client_id": {"in-file"}, "client_secret": {wrong + "\xff"}},
			{"client_id": {"in-file"}, "client_assertion": {wrong}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}},
			{"client_id": {"in-file"}, "client_assertion": {wrong}, "client_secret": {wrong}},
			{"client_id": {"in-file"}, "client_assertion": {wrong}},
			{"client_secret": {wrong}},
		} {
			form.Set("grant_type", "client_credentials")
			form.Set("token", wrong)
			s.post(path, form)
			s.post(path+"?client_secret="+wrong, form)
		}
		form := url.Values{"grant_type": {"client_credentials"}, "token": {good}}
		for _, authorization := range []string{
			basic("in-file", wrong), basic("nobody", wrong), "Basic " + wrong, "Basic " + wrong + "=", basic("in-file", wrong+"%zz"),
			"Basic " + base64.StdEncoding.EncodeToString([]byte(wrong)), "Bearer " + wrong, wrong, "basic  " + wrong,
		} {
			s.post(path, form, "Authorization", authorization)
			s.post(path, form, "Authorization", authorization, "Authorization", authorization)
		}
		s.send(http.MethodPost, path, `{"client_secret":"`+wrong+`"}`, "Content-Type", "application/json")
		s.send(http.MethodPost, path, "client_secret="+wrong+"%zz", "Content-Type", "application/x-www-form-urlencoded")
		s.send(http.MethodGet, path+"?client_secret="+wrong, "")
	}
	for _, token := range []string{good, wrong, "a." + wrong + ".b", good + wrong, strings.Repeat(wrong, 1000)} {
		for _, path := range []string{"/connect/introspect", "/connect/revoke"} {
			_, body := s.post(path, url.Values{"token": {token}}, "Authorization", basic("in-file", canary("in-file")))
			s.answers.WriteString(body)
		}
	}
}

// administerREST sets valid and invalid secrets as an administrator, and attempts calls with invalid tokens.
func (s *leakTest) administerREST(boss string) {
	as, content := []string{"Authorization", "Bearer " + boss}, []string{"Content-Type", "application/json"}
	chosen := canary("chosen")
	for _, call := range [][2]string{
		{"/v1/clients", `{"client":{"client_id":"made","scopes":["api1"]},"client_secret":"` + chosen + `"}`},
		{"/v1/clients", `{"client":{"client_id":"generated","scopes":["api1"]}}`},
		{"/v1/clients/made/secrets", `{"client_secret":"` + canary("added") + `"}`},
		{"/v1/clients/made/secrets:rotate", `{}`},
		{"/v1/clients", `{"client":{"client_id":"made"},"client_secret":"` + chosen + `"}`},
		{"/v1/clients", `{"client":{"client_id":"bad","scopes":["none"]},"client_secret":"` + chosen + `"}`},
		{"/v1/clients/made/secrets", `{"client_secret":"` + chosen + `\u0007"}`},
		{"/v1/clients/made/secrets", `{"client_secret":["` + chosen + `"]}`},
		{"/v1/clients/made/secrets", `{"client_secret":"` + chosen + `"`},
		{"/v1/clients/made/secrets", `{"client_secret":"` + strings.Repeat(chosen, 100) + `"}`},
		{"/v1/clients/made/secrets", `{"client_secret":` + chosen + `}`},
		{"/v1/clients/made/secrets?client_secret=" + chosen, `{}`},
	} {
		_, body := s.send(http.MethodPost, call[0], call[1], append(as, content...)...)
		var made struct {
			Secret string `json:"client_secret"`
		}
		if json.Unmarshal([]byte(body), &made) == nil && made.Secret != "" && made.Secret != chosen {
			s.add("a generated secret", made.Secret)
		}
	}
	_, body := s.send(http.MethodGet, "/v1/clients", "", as...)
	s.answers.WriteString(body)
	wrong := canary("bearer")
	for _, authorization := range []string{
		"Bearer " + wrong, "bearer  " + wrong, "Bearer " + boss + wrong, "Bearer " + boss[:len(boss)-4] + "AAAA", basic("x", wrong), wrong,
		"Bearer " + strings.Repeat(wrong, 300), "Bearer a." + wrong + ".c",
	} {
		s.send(http.MethodGet, "/v1/clients", "", "Authorization", authorization)
		s.send(http.MethodGet, "/v1/keys", "", "Authorization", authorization, "Authorization", authorization)
	}
}

// pace is called before each call, and returns its source in the words of the trusted proxy that the test is: refusals are
// audited only up to a rate, for each source and for all, and each must be audited to be checked. A source makes 15 calls. 50
// calls take at least a second, so that no second has more than the 100 refusals of one kind that are audited.
func (s *leakTest) pace() (source string) {
	const callsPerSource, callsPerSecond = 15, 50
	if s.calls++; s.calls%callsPerSecond == 0 {
		<-time.After(time.Until(s.paced.Add(time.Second)))
		s.paced = time.Now()
	}
	return fmt.Sprintf("198.51.100.%d", s.calls/callsPerSource)
}

// call makes a call over gRPC, and records its error and metadata.
func (s *leakTest) call(authorization string, do func(context.Context, ...grpc.CallOption) (any, error)) {
	ctx := metadata.AppendToOutgoingContext(s.t.Context(), "x-forwarded-for", s.pace())
	if authorization != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	}
	var header, trailer metadata.MD
	_, err := do(ctx, grpc.Header(&header), grpc.Trailer(&trailer))
	fmt.Fprintln(&s.answers, err, status.Convert(err).Proto(), header, trailer)
}

// overGRPC makes the calls of REST over gRPC, and those that exist only there.
func (s *leakTest) overGRPC(boss string) {
	tokens, resources := grantorv1.NewTokenServiceClient(s.conn), grantorv1.NewResourceServiceClient(s.conn)
	right, wrong := canary("in-file"), canary("wrong-grpc")
	for _, authorization := range []string{"", basic("in-file", right), basic("in-file", wrong), "Basic " + wrong, "Bearer " + wrong, "Bearer " + boss, wrong} {
		for _, secret := range []string{"", right, wrong, strings.Repeat(wrong, 50), wrong + "\x00"} {
			s.call(authorization, func(ctx context.Context, o ...grpc.CallOption) (any, error) {
				answer, err := tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientId: "in-file", ClientSecret: secret}, o...)
				if err == nil {
					s.add("a token over gRPC", answer.GetAccessToken())
				}
				return answer, err
			})
			s.call(authorization, func(ctx context.Context, o ...grpc.CallOption) (any, error) {
				return tokens.IntrospectTokens(ctx, &grantorv1.IntrospectTokensRequest{ClientId: "in-file", ClientSecret: secret, Tokens: []string{boss, wrong}}, o...)
			})
			s.call(authorization, func(ctx context.Context, o ...grpc.CallOption) (any, error) {
				return tokens.RevokeToken(ctx, &grantorv1.RevokeTokenRequest{ClientId: "in-file", ClientSecret: secret, Token: wrong}, o...)
			})
		}
		s.call(authorization, func(ctx context.Context, o ...grpc.CallOption) (any, error) {
			return tokens.IssueToken(ctx, &grantorv1.IssueTokenRequest{GrantType: "client_credentials", ClientAssertion: wrong, ClientAssertionType: wrong}, o...)
		})
		for _, hash := range []string{importedHash(s.t, canary("other")), "$2b$10$" + wrong, wrong} {
			s.add("a hash", hash)
			s.call(authorization, func(ctx context.Context, o ...grpc.CallOption) (any, error) {
				return resources.ApplyManifest(ctx, &grantorv1.ApplyManifestRequest{Clients: []*grantorv1.WantedClient{{
					Client: &grantorv1.Client{ClientId: "over-grpc", Scopes: []string{"api1"}}, ClientSecret: canary("wanted"), ClientSecretHashes: []string{hash},
				}}}, o...)
			})
		}
	}
}

// panics makes a handler panic with a value that contains a secret.
func (s *leakTest) panics() {
	request := &grantorv1.IssueTokenRequest{ClientSecret: canary("panic")}
	info := &grpc.UnaryServerInfo{FullMethod: "/grantor.v1.TokenService/IssueToken"}
	for _, value := range []any{request, request.GetClientSecret(), fmt.Errorf("broken by %s", request.GetClientSecret())} {
		_, err := s.Service().UnaryInterceptor()(s.t.Context(), request, info, func(context.Context, any) (any, error) { panic(value) })
		fmt.Fprintln(&s.answers, err, status.Convert(err).Proto())
	}
	if !strings.Contains(s.Log.String(), "panic in a call") {
		s.t.Error("the panic is not in the log")
	}
}

// reflects calls server reflection, which is served only in development mode.
func (s *leakTest) reflects() {
	stream, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(s.t.Context())
	s.must(err)
	for _, request := range []*reflectionpb.ServerReflectionRequest{
		{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}},
		{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "grantor.v1.TokenService"}},
		{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: canary("symbol")[len(mark):]}},
	} {
		if stream.Send(request) != nil {
			break
		}
		answer, err := stream.Recv()
		fmt.Fprintln(&s.answers, answer, err)
	}
	_ = stream.CloseSend()
}

// commands runs the commands of an operator, with secrets in the environment, and invalid files.
func (s *leakTest) commands() {
	t := s.t
	shown := func(args ...string) {
		t.Helper()
		ran := run(t, args...)
		fmt.Fprintln(&s.answers, args[:2], ran.Out, ran.ErrOut, ran.Err)
	}
	shown(append([]string{"config", "print"}, s.args...)...)
	shown(append([]string{"config", "print", "-o", "json"}, s.args...)...)
	t.Setenv("GRANTOR_ISSUER", "https://"+s.HTTPAddr())
	t.Setenv("GRANTOR_CLIENT_ID", "in-file")
	t.Setenv("GRANTOR_CLIENT_SECRET", canary("command"))
	shown("token", "issue")
	shown("client", "list")
	shown("audit", "--redis", "redis://grantor:"+canary("wrong-redis")+"@"+s.redis.Addr())
	for _, secret := range []string{"[" + canary("list") + "]", "{a: " + canary("map") + "}", `"` + canary("control") + `\u0007"`, canary("open") + "\n   x: y", "&" + canary("anchor"), "*" + canary("alias")} {
		path := servetest.WriteFile(t, "bad.yaml", "clients:\n  - client_id: a\n    client_secret: "+secret+"\n")
		shown("apply", "-f", path, s.args[0], s.args[3])
	}
	for _, line := range []string{"client_secret_hashes: [" + canary("hash") + "]", "client_secret_hashes: " + canary("hash"), "client_secret_hashes: {a: " + canary("hash") + "}"} {
		path := servetest.WriteFile(t, "bad.yaml", "clients:\n  - client_id: a\n    "+line+"\n")
		shown("apply", "-f", path, s.args[0], s.args[3])
	}
}

// startsWrong starts servers whose secrets are wrong or malformed.
func (s *leakTest) startsWrong() {
	bare := s.args[1:3]
	url, other := s.args[0], "--key-encryption-key="+encode([]byte(mark + "-another-key-1234567890123")[:32])
	for _, args := range [][]string{
		{url, other}, {url, "--key-encryption-key=" + canary("kek")}, {url, "--key-encryption-key-file=" + servetest.WriteFile(s.t, "kek", canary("kek"))},
		{url, s.args[3], "--previous-key-encryption-key=" + canary("kek")},
		{url, s.args[3], "--key-encryption-key-url=base64key://" + canary("url")},
		{"--redis=redis://grantor:" + canary("wrong-redis") + "@" + s.redis.Addr(), s.args[3]},
		{"--redis=redis://grantor:" + canary("at") + "@x@" + s.redis.Addr(), s.args[3]},
		{"--redis=redis://grantor:" + canary("slash") + "/x@" + s.redis.Addr(), s.args[3]},
		{"--redis=redis://grantor:%zz" + canary("escape") + "@" + s.redis.Addr(), s.args[3]},
		{"--redis=" + canary("scheme") + "://" + s.redis.Addr(), s.args[3]},
		{"--redis=redis://" + s.redis.Addr() + "?password=" + canary("parameter"), s.args[3]},
	} {
		_, err := servetest.Try(s.t, append(slices.Clone(bare), args...)...)
		if err == nil {
			s.t.Errorf("a server started with %q", args)
		}
		fmt.Fprintln(&s.answers, err)
	}
}
