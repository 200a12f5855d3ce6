package tokens

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/grantorhq/grantor/cmd/grantor/cli"
	"github.com/grantorhq/grantor/cmd/grantor/remote"
	"github.com/grantorhq/grantor/cmd/grantor/settings"
	"github.com/grantorhq/grantor/service/token"
)

// clockSkew is how far the issuer's clock may be ahead of this machine's, as in interceptors/verify.
const clockSkew = 30 * time.Second

// maxSeconds is the last second of the year 9999, the last one that RFC 3339 can represent.
const maxSeconds = 253402300799

func newDecodeCommand(shared settings.Names) *cobra.Command {
	s := NewSettings(shared)
	var verify bool
	cmd := &cobra.Command{
		Use:   "decode [- | TOKEN]",
		Short: "Print the contents of a token, without any request",
		Long: `Print the header and the claims of a JWT. The token is read from standard input; it can also be the argument, which other
users and the shell's history can reveal.

Nothing is verified: anyone can write a token with any claims. With --verify the keys are fetched from --issuer, and the
signature, the issuer and the times are checked; a token that does not pass is an error, and nothing of it is printed. The
audience is not checked, and only grantor token introspect can tell whether the token was revoked.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: s.Prepare,
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readToken(cmd, args)
			if err != nil {
				return err
			}
			decoded, err := Decode(raw)
			if err != nil {
				return cli.WithExit(cli.ExitInvalid, err)
			}
			if verify {
				if err := remote.CheckIssuer(s.Issuer); err != nil {
					return err
				}
				if err := s.verify(cmd.Context(), raw); err != nil {
					return err
				}
				decoded.Verified = true
			}
			if s.Output == "json" {
				document, err := json.Marshal(decoded)
				if err != nil {
					return err
				}
				return printJSON(cmd.OutOrStdout(), document)
			}
			return decoded.print(cmd.OutOrStdout(), s.Issuer)
		},
	}
	// The other settings are resolved too, so that one file of settings serves every token command.
	for _, name := range []string{"config", "issuer", "profile", "output"} {
		cmd.Flags().AddFlag(s.Flags.Lookup(name))
	}
	cmd.Flags().BoolVar(&verify, "verify", false, "fetch the issuer's keys and check signature, issuer and times")
	return cmd
}

// verify checks a token with the issuer's keys. It accepts any audience, because nothing is guarded here.
func (s *Settings) verify(ctx context.Context, raw string) error {
	ctx, cancel := context.WithTimeout(ctx, remote.Timeout)
	defer cancel()
	keys, err := remote.FetchKeys(ctx, s.Issuer)
	if err != nil {
		return fmt.Errorf("the issuer's keys: %w", err)
	}
	verifier := &token.Verifier{Issuer: s.Issuer, Keys: keys, Leeway: clockSkew}
	if _, err = verifier.Verify(ctx, raw); err != nil {
		return cli.WithExit(cli.ExitInvalid, fmt.Errorf("the token is not valid: %w", err))
	}
	return nil
}

// Decoded is a decoded JWT.
type Decoded struct {
	Header   json.RawMessage `json:"header"`
	Claims   json.RawMessage `json:"claims"`
	Verified bool            `json:"verified"`

	header, claims []member
}

// Decode decodes a JWT, signed or not. Its errors quote nothing of it.
func Decode(raw string) (*Decoded, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("not a signed JWT: it has %d parts between dots, not 3", len(parts))
	}
	t := &Decoded{}
	for _, part := range []struct {
		name, encoded string
		raw           *json.RawMessage
		to            *[]member
	}{{"header", parts[0], &t.Header, &t.header}, {"payload", parts[1], &t.Claims, &t.claims}} {
		data, err := base64.RawURLEncoding.DecodeString(part.encoded)
		if err != nil {
			return nil, fmt.Errorf("not a signed JWT: its %s is not base64url", part.name)
		}
		if *part.to, err = members(data); err != nil {
			return nil, fmt.Errorf("not a signed JWT: its %s is %w", part.name, err)
		}
		*part.raw = data
	}
	return t, nil
}

func (t *Decoded) print(out io.Writer, issuer string) error {
	now := time.Now()
	for _, part := range []struct {
		name   string
		fields []member
	}{{"Header", t.header}, {"Claims", t.claims}} {
		if _, err := fmt.Fprintln(out, part.name); err != nil {
			return err
		}
		if err := printMembers(out, part.fields, now); err != nil {
			return err
		}
		_, _ = fmt.Fprintln(out)
	}
	verdict := "NOT VERIFIED: anyone can write this. Check signature, issuer and times with --verify."
	if t.Verified {
		verdict = "Verified: signed by " + cli.Printable(issuer) + ", and within its validity period. Use grantor token introspect to see whether it was revoked."
	}
	_, err := fmt.Fprintln(out, verdict)
	return err
}

// member is one member of a JSON object.
type member struct {
	name  string
	value json.RawMessage
}

// members returns the members of a JSON object in their order, duplicates included: a person who inspects a token wants
// to see them.
func members(document []byte) ([]member, error) {
	errNoObject := errors.New("not a JSON object")
	if !json.Valid(document) || !bytes.HasPrefix(bytes.TrimLeft(document, " \t\r\n"), []byte("{")) {
		return nil, errNoObject
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	if _, err := decoder.Token(); err != nil {
		return nil, errNoObject
	}
	var found []member
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, errNoObject
		}
		m := member{name: fmt.Sprint(name)}
		if err := decoder.Decode(&m.value); err != nil {
			return nil, errNoObject
		}
		found = append(found, m)
	}
	return found, nil
}

// timeClaims are the claims that contain a time (RFC 7519 §4.1, OpenID Connect Core §2).
var timeClaims = []string{"exp", "iat", "nbf", "auth_time"}

// printMembers prints members for people, one per line.
func printMembers(out io.Writer, fields []member, now time.Time) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, m := range fields {
		text := string(m.value)
		var plain string
		var seconds float64
		switch {
		case json.Unmarshal(m.value, &plain) == nil:
			text = plain
		case slices.Contains(timeClaims, m.name) && json.Unmarshal(m.value, &seconds) == nil && seconds >= 0 && seconds <= maxSeconds:
			text += "  " + formatTime(time.Unix(int64(seconds), 0), now)
		}
		_, _ = fmt.Fprintf(table, "  %s\t%s\n", cli.Printable(m.name), cli.Printable(text))
	}
	return table.Flush()
}

// formatTime formats a time and its distance from now.
func formatTime(at, now time.Time) string {
	text := at.UTC().Format(time.RFC3339)
	if distance := at.Sub(now).Round(time.Second); distance > 0 {
		return text + ", in " + distance.String()
	}
	return text + ", " + now.Sub(at).Round(time.Second).String() + " ago"
}
