package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
)

func TestResourceLife(t *testing.T) {
	asAdministrator(t)
	made := run(t, "resource", "create", "https://mail.internal", "--name", "Mail", "--scope", "mail.read mail.send", "--signing-alg", "RS256")
	if got := made.Works(t); got != "Resource https://mail.internal is registered.\n" {
		t.Errorf("got %q", got)
	}
	run(t, "resource", "create", "https://mail.internal").Exits(t, cli.ExitConflict, "resource https://mail.internal: already_exists: ")
	shows(t, grantor(t, "resource get https://mail.internal"), `^resource +https://mail.internal$`, `^name +Mail$`,
		`^scopes +mail.read mail.send$`, `^access_token_lifetime +the issuer's$`, `^signing_alg +RS256$`, `^etag +\S+$`)
	shows(t, grantor(t, "resource list"), `^RESOURCE +NAME +SCOPES$`, `^https://mail.internal +Mail +mail.read mail.send$`,
		`^https://orders.internal +Orders API +api1 orders.read$`)
	grantor(t, "resource update https://mail.internal --remove-scope mail.send --add-scope mail.list --signing-alg= --access-token-lifetime 5m")
	got := fields(t, grantor(t, "resource get https://mail.internal -o json"))
	if fmt.Sprint(got["scopes"]) != "[mail.read mail.list]" || got["signing_alg"] != nil || got["access_token_lifetime"] != "300s" {
		t.Errorf("got %v, want the fields as they were set", got)
	}
	etag, _ := got["etag"].(string)
	grantor(t, "resource update https://mail.internal --name Post --etag "+etag)
	run(t, "resource", "update", "https://mail.internal", "--name=x", "--etag="+etag).Exits(t, cli.ExitConflict, "conflict: ")
	run(t, "resource", "delete", "https://mail.internal", "--yes", "--etag="+etag).Exits(t, cli.ExitConflict, "conflict: ")
	run(t, "resource", "update", "https://mail.internal", "--scope=api1").Exits(t, cli.ExitInvalid, "api1")
	run(t, "resource", "create", "mail").Exits(t, cli.ExitInvalid, "resource mail: ")
	if got := grantor(t, "resource delete https://mail.internal --yes"); got != "Resource https://mail.internal is deleted.\n" {
		t.Errorf("got %q", got)
	}
	run(t, "resource", "get", "https://mail.internal").Exits(t, cli.ExitNotFound, "resource https://mail.internal: not_found: ")
	run(t, "resource", "delete", "https://mail.internal", "--yes").Exits(t, cli.ExitNotFound, "not_found: ")
}

func TestKeyLife(t *testing.T) {
	r := asAdministrator(t)
	list := grantor(t, "key list")
	shows(t, list, `^KEY +ALG +STATE +SIGNS FROM +SIGNS UNTIL +PUBLISHED UNTIL$`, `^\S{43} +ES256 +active +\S+Z +\S`, `^\S{43} +RS256 +active +\S+Z +\S`)
	kid := func(text, alg, state string) string {
		t.Helper()
		match := regexp.MustCompile(`(?m)^(\S{43}) +` + alg + ` +` + state + ` `).FindStringSubmatch(text)
		if match == nil {
			t.Fatalf("got this, without an %s key of %s:\n%s", state, alg, text)
		}
		return match[1]
	}
	active := kid(list, "ES256", "active")
	rotated := run(t, "key", "rotate", "--alg", "ES256")
	upcoming := kid(rotated.Works(t), "ES256", "upcoming")
	if rotated.ErrOut != "Every selected key has a successor.\n" || strings.Contains(rotated.Out, "RS256  upcoming") {
		t.Errorf("got %q and\n%s", rotated.ErrOut, rotated.Out)
	}
	if got := grantor(t, "key retire -- "+upcoming); strings.Contains(got, upcoming) {
		t.Errorf("a key that has signed nothing is still there:\n%s", got)
	}
	raw := r.Token(t)
	gone := run(t, "key", "compromise", "--yes", "--", active)
	if strings.Contains(gone.Works(t), active) || gone.ErrOut != "Key "+active+" is removed, and every token that it signed is refused.\n" {
		t.Errorf("got %q and\n%s", gone.ErrOut, gone.Out)
	}
	as(t, "background-service", clitest.DevSecret)
	if got := runToken(t, raw, "introspect").Works(t); got != "  active  false\n" {
		t.Errorf("a token of the key: got %q", got)
	}
	as(t, "administrator", adminSecret)
	run(t, "key", "retire", "--", active).Exits(t, cli.ExitNotFound, "key "+active+": not_found: ")
	run(t, "key", "retire", "nothing").Exits(t, cli.ExitInvalid, "key nothing: invalid_request: ")
	run(t, "key", "rotate", "--alg", "HS256").Exits(t, cli.ExitInvalid, "")
	old := kid(grantor(t, "key list"), "RS256", "active")
	grantor(t, "key retire -- "+old)
	shows(t, grantor(t, "key list -o yaml"), `^keys:$`, `^- kid: `)
}
