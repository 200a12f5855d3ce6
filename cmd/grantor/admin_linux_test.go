package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/clitest"
	grantorv1 "github.com/grantorhq/grantor/gen/grantor/v1"
)

// TestConfirm types an ID at a terminal to confirm what cannot be undone, and then the secret.
func TestConfirm(t *testing.T) {
	for _, c := range []struct{ command, id string }{
		{"client delete background-service", "background-service"},
		{"client revoke background-service", "background-service"},
		{"client secret delete background-service k3v9", "k3v9"},
		{"resource delete https://orders.internal", "https://orders.internal"},
		{"key compromise abc", "abc"},
	} {
		t.Run(c.command, func(t *testing.T) {
			p := newFakeIssuer(t, func(request any) (proto.Message, error) {
				switch request.(type) {
				case *grantorv1.DeleteClientRequest:
					return &grantorv1.DeleteClientResponse{}, nil
				case *grantorv1.RevokeTokensRequest:
					return &grantorv1.RevokeTokensResponse{}, nil
				case *grantorv1.DeleteClientSecretRequest:
					return &grantorv1.DeleteClientSecretResponse{}, nil
				case *grantorv1.DeleteResourceRequest:
					return &grantorv1.DeleteResourceResponse{}, nil
				}
				return &grantorv1.CompromiseKeyResponse{}, nil
			})
			person, terminal := pseudoTerminal(t)
			for _, typed := range []string{"no", "", strings.ToUpper(c.id), "\x04"} {
				if !strings.HasPrefix(typed, "\x04") {
					typed += "\n"
				}
				_, _ = io.WriteString(person, typed)
				got := runOn(t, terminal, strings.Fields(c.command)...)
				got.Exits(t, cli.ExitOther, "that is not the id; nothing was done")
				if !strings.HasSuffix(got.ErrOut, "Type "+c.id+" to continue: ") {
					t.Errorf("got the question %q", got.ErrOut)
				}
			}
			if len(p.calls)+len(p.asked) > 0 {
				t.Errorf("the issuer was asked: %v %v", p.asked, p.calls)
			}
			t.Setenv("GRANTOR_CLIENT_SECRET", "")
			_, _ = fmt.Fprintf(person, "%s\n%s\n", c.id, clitest.Secret)
			got := runOn(t, terminal, strings.Fields(c.command)...)
			got.Works(t)
			if !strings.Contains(got.ErrOut, "Secret of administrator: ") || len(p.calls) != 1 {
				t.Errorf("got %q and the calls %q, want a question for the secret and one call", got.ErrOut, p.calls)
			}
		})
	}
}

// TestConfirmEnds expects a signal to end the wait for input.
func TestConfirmEnds(t *testing.T) {
	newFakeIssuer(t, nil)
	expectPromptEnds(t, "Type", "client", "delete", "background-service")
}

// TestProgress writes a long list to a file, and expects its progress on the terminal.
func TestProgress(t *testing.T) {
	newFakeIssuer(t, func(request any) (proto.Message, error) {
		list, _ := request.(*grantorv1.ListResourcesRequest)
		answer := &grantorv1.ListResourcesResponse{Resources: []*grantorv1.Resource{{Resource: "https://a.example"}}}
		if len(list.GetPageToken()) < 2 {
			answer.NextPageToken = list.GetPageToken() + "x"
		}
		return answer, nil
	})
	person, terminal := pseudoTerminal(t)
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs([]string{"resource", "list"})
	cmd.SetOut(&out)
	cmd.SetErr(terminal)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	const clearLine = "\r\x1b[K"
	want := clearLine + "1 resources" + clearLine + "2 resources" + clearLine + "3 resources" + clearLine
	shown := make([]byte, len(want))
	if _, err := io.ReadFull(person, shown); err != nil {
		t.Fatal(err)
	}
	row := "https://a.example  -     -\n"
	if string(shown) != want || out.String() != "RESOURCE           NAME  SCOPES\n"+row+row+row {
		t.Errorf("got %q on the terminal, want %q; and the list\n%s", shown, want, out.String())
	}
}
