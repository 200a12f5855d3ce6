// Package secretvar gives a client's secret from where it is kept, as named by a URL: in AWS Secrets Manager, in Google
// Cloud Secret Manager, behind HTTPS, in a file. It carries a variable of the Go Cloud Development Kit
// (https://gocloud.dev/howto/runtimevar/) to attach.SecretFunc:
//
//	import _ "gocloud.dev/runtimevar/awssecretsmanager"
//
//	variable, err := secretvar.Open(ctx, "awssecretsmanager://background-service?region=eu-central-1")
//	source := attach.ClientCredentials(issuer, "background-service", "", attach.SecretFunc(variable.Secret))
//
// What kinds of URL there are is up to the drivers that the program imports. This is a package of its own so that
// neither the kit nor a cloud's client is compiled into a program that does without.
package secretvar

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"gocloud.dev/runtimevar"
)

// Variable is a secret that is being watched. It may be used by several goroutines.
type Variable struct {
	name     string // the URL as it may be printed
	variable *runtimevar.Variable
	first    chan struct{} // closed when there is a value, or an error instead
}

// Open watches the secret that the URL names until [Variable.Close]. Of the URL's parameters, which are the driver's,
// two matter here: the decoder, if there is one, must be "string" or "bytes", with "decrypt" before it where the kit is
// to decrypt; and wait is how long some drivers take to see a change, 30 s if it is left out.
//
// Open waits for no value. It fails where no driver knows the URL, or the driver cannot use it; ctx is for the driver's
// preparations. No error of this package quotes what a URL has before its host or after its path: it may be secret.
func Open(ctx context.Context, rawURL string) (*Variable, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("secretvar: what should name the secret is not a URL")
	}
	// Where a URL ends in a text must be plain to see.
	u.RawQuery = strings.NewReplacer(" ", "%20", `"`, "%22").Replace(u.RawQuery)
	variable, err := runtimevar.DefaultURLMux().OpenVariableURL(ctx, u)
	if err != nil {
		return nil, errors.New("secretvar: " + discreet(err.Error()))
	}
	v := &Variable{name: discreet(u.String()), variable: variable, first: make(chan struct{})}
	watching := context.WithoutCancel(ctx)
	go func() {
		defer close(v.first)
		_, _ = variable.Watch(watching) // Close ends it at the latest
	}()
	return v, nil
}

// Secret gives the newest value that could be read, less the line ends after it; it fits attach.SecretFunc. It waits
// for the driver's first answer only. A value that was read serves while newer ones cannot be; the error, where there
// has been none, is the driver's.
func (v *Variable) Secret(ctx context.Context) (string, error) {
	select {
	case <-v.first:
	case <-ctx.Done():
		return "", fmt.Errorf("secretvar: waiting for %s: %w", v.name, ctx.Err())
	}
	// Latest would wait for a good value as long as ctx lets it, and tell only then why there is none.
	ended, end := context.WithCancel(ctx)
	end()
	latest, err := v.variable.Latest(ended)
	if err != nil {
		return "", v.failure(err)
	}
	var text string
	switch value := latest.Value.(type) {
	case string:
		text = value
	case []byte:
		text = string(value)
	default:
		return "", fmt.Errorf("secretvar: %s is decoded to a %T, not to text", v.name, value)
	}
	if text = strings.TrimRight(text, "\r\n"); text == "" {
		return "", fmt.Errorf("secretvar: %s is empty", v.name)
	}
	return text, nil
}

// Close ends the watching. Secret fails from then on.
func (v *Variable) Close() error {
	err := v.variable.Close()
	<-v.first
	switch {
	case err == nil, errors.Is(err, runtimevar.ErrClosed):
		return nil
	default:
		return v.failure(err)
	}
}

// Format prints the URL as far as nothing in it can be secret, whatever the verb, and never the value.
func (v *Variable) Format(state fmt.State, _ rune) {
	_, _ = fmt.Fprintf(state, "secretvar.Variable(%q)", v.name)
}

// failure does not wrap err: whoever unwraps an error prints what it finds.
func (v *Variable) failure(err error) error {
	return fmt.Errorf("secretvar: %s: %s", v.name, discreet(err.Error()))
}

var (
	userInURL  = regexp.MustCompile(`//[^/?#\s"]*@`)
	queryInURL = regexp.MustCompile(`\?[^\s"]*`)
)

// discreet takes user and query out of the URLs in a text.
func discreet(text string) string {
	return queryInURL.ReplaceAllString(userInURL.ReplaceAllString(text, "//"), "")
}
