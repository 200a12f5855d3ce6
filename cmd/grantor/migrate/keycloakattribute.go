package migrate

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// keycloakMeaninglessAttributes are attributes that mean nothing for a service.
var keycloakMeaninglessAttributes = []string{
	"realm_client", "client.secret.creation.time", "display.on.consent.screen", "post.logout.redirect.uris", "login_theme",
	"backchannel.logout.url", "backchannel.logout.session.required", "backchannel.logout.revoke.offline.tokens",
	"frontchannel.logout.url", "frontchannel.logout.session.required", "use.refresh.tokens",
}

// keycloakTime parses seconds since 1970. Without a value, or with 0, the time is zero.
func keycloakTime(f *field) (time.Time, error) {
	text, err := f.numeral()
	if err != nil || text == "" || text == "0" {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, f.errorf("is not a number of seconds")
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// readAttributes reads the lifetime of tokens, and reports the attributes without a counterpart.
func (k *keycloakImport) readAttributes(c *keycloakClient, attributes *record) error {
	lifespan := attributes.take("access.token.lifespan")
	for _, name := range keycloakMeaninglessAttributes {
		attributes.take(name)
	}
	var unused []string
	for _, f := range attributes.fields {
		text, err := f.text()
		if !f.used && !f.empty() && (err != nil || text != "false") {
			unused = append(unused, shown(f.name))
		}
	}
	slices.Sort(unused)
	if len(unused) > 0 {
		k.notef(rankClient, c.ID, "attributes: %s: no counterpart here", strings.Join(unused, ", "))
	}
	return k.readLifetime(c, lifespan)
}

// readLifetime reads the lifetime of the client's tokens, which is that of the realm if the client has none. A value that
// is no number or zero, with which Keycloak issues no usable token, is left out: one such client should not end the import.
func (k *keycloakImport) readLifetime(c *keycloakClient, own *field) error {
	if len(c.GrantTypes) == 0 {
		return nil
	}
	lifespan := own
	seconds, ok, err := own.seconds()
	if err != nil || ok && seconds == 0 {
		k.notef(rankClient, c.ID, "%s: left out, because it is not a number of seconds from 1; the lifetime is that of the realm, or else of the issuer here", own.name)
		ok = false
	}
	if !ok {
		lifespan = k.lifespan
		if seconds, ok, err = lifespan.seconds(); err != nil || !ok {
			return err
		}
	}
	if seconds < 0 { // as long as the session there
		k.notef(rankClient, c.ID, "%s: %d has no counterpart; the lifetime is that of the issuer here", lifespan.name, seconds)
		return nil
	}
	return k.lifetime(c.importedClient, lifespan.value, time.Duration(seconds)*time.Second)
}

// seconds returns a number of seconds, up to that of a [time.Duration]. ok is false if there is none.
func (f *field) seconds() (seconds int64, ok bool, err error) {
	text, err := f.numeral()
	if err != nil || text == "" || text == "null" {
		return 0, false, err
	}
	seconds, err = strconv.ParseInt(text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false, f.errorf("is not a number of seconds")
	}
	return min(seconds, int64(math.MaxInt64/time.Second)), true, nil
}

// numeral returns a number, which attributes have as a text, or an empty text if there is none.
func (f *field) numeral() (string, error) {
	if f.is('"') {
		text, err := f.text()
		return strings.TrimSpace(text), err
	}
	if f.is('{') || f.is('[') {
		return "", f.errorf("expected a number")
	}
	if text := string(f.raw); text != "null" {
		return text, nil
	}
	return "", nil
}

// optional returns the record of a column, which is empty if there is none. Its names are free, such as my_attr and myAttr,
// and each is another.
func (f *field) optional() (*record, error) {
	if string(f.raw) == "null" {
		return &record{value: f.value, key: exactly, byName: make(map[string]*field)}, nil
	}
	return f.recordBy(exactly)
}
