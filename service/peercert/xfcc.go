package peercert

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
)

// parseXFCC parses x-forwarded-client-cert of Envoy: a list of elements, each a list of pairs with the certificate of the client
// of one proxy. A proxy that appends its element passes on what its client sent, so that only the last one is that of the
// trusted proxy.
//
// The whole value must be well-formed: a quote that a client leaves open would otherwise hide where the last element begins.
func parseXFCC(value string) ([]*x509.Certificate, error) {
	if value == "" {
		return nil, nil
	}
	elements, err := splitQuoted(value, ',')
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for i, element := range elements {
		leaf, all, err := cutElement(element)
		if err != nil {
			return nil, err
		}
		last := i == len(elements)-1
		if leaf == "" && all == "" && !last {
			continue // proxies further away may send less
		}
		if chain, err = joinXFCC(leaf, all); err != nil {
			return nil, err
		}
		if !last && slices.ContainsFunc(chain, hasComma) {
			return nil, errors.New("a certificate has a name that would begin an element")
		}
	}
	return chain, nil
}

// cutElement returns the values of the pairs Cert and Chain of an element.
func cutElement(element string) (leaf, chain string, err error) {
	pairs, err := splitQuoted(element, ';')
	if err != nil {
		return "", "", err
	}
	for _, pair := range pairs {
		key, quoted, ok := strings.Cut(pair, "=")
		if !ok || strings.Contains(key, `"`) || !wellQuoted(quoted) {
			return "", "", errEncoding
		}
		to := &leaf
		switch strings.ToLower(strings.Trim(key, " \t")) {
		case "cert":
		case "chain":
			to = &chain
		default:
			continue
		}
		text, err := unquote(quoted)
		if err != nil || text == "" || *to != "" {
			return "", "", errEncoding
		}
		*to = text
	}
	return leaf, chain, nil
}

// wellQuoted reports whether a value has no quotes, or is between two and has none inside without a backslash.
func wellQuoted(value string) bool {
	value = strings.Trim(value, " \t")
	if !strings.Contains(value, `"`) {
		return true
	}
	for i := 1; i < len(value); i++ {
		switch value[i] {
		case '\\':
			i++
		case '"':
			return value[0] == '"' && i == len(value)-1
		}
	}
	return false
}

// hasComma reports whether a certificate has a name with a comma. Envoy writes the pairs URI and DNS without quotes, and after
// the others, so that such a name would end the element of the trusted proxy and begin one of its client's choice.
func hasComma(c *x509.Certificate) bool {
	names := slices.Clone(c.DNSNames)
	for _, uri := range c.URIs {
		names = append(names, uri.String())
	}
	return strings.Contains(strings.Join(names, " "), ",")
}

// joinXFCC returns the certificates of the pairs Cert, which has that of the client, and Chain, which has all.
func joinXFCC(leaf, chain string) ([]*x509.Certificate, error) {
	if leaf == "" && chain == "" {
		return nil, errors.New("the last element has neither Cert nor Chain; the proxy must be told to send one")
	}
	first, err := parseEscapedPEM(leaf)
	if err != nil {
		return nil, err
	}
	all, err := parseEscapedPEM(chain)
	switch {
	case err != nil:
		return nil, err
	case len(first) == 0:
		return all, nil
	case len(first) > 1 || len(all) > 0 && !all[0].Equal(first[0]):
		return nil, errors.New("the certificate of Cert is not the first of Chain")
	case len(all) > 0:
		return all, nil
	}
	return first, nil
}

// splitQuoted splits text at the separators outside quotes. Within quotes, a backslash comes before a quote that is part of the
// value. Outside of them a backslash is an error: after a quote that a client has left open, the values of the proxy stand
// outside quotes, and those may have quotes of the client's choice, such as those of the subject.
func splitQuoted(text string, separator byte) ([]string, error) {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '\\':
			return nil, errEncoding
		case c == '"':
			quoted = !quoted
		case !quoted && c == separator:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	if quoted {
		return nil, errEncoding
	}
	return append(parts, text[start:]), nil
}

// unquote returns a value without its quotes.
func unquote(value string) (string, error) {
	value = strings.Trim(value, " \t")
	if !strings.Contains(value, `"`) {
		return value, nil
	}
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return "", errEncoding
	}
	inner := value[1 : len(value)-1]
	if strings.ContainsAny(inner, `"\`) { // PEM with percent-encoding has neither
		return "", errEncoding
	}
	return inner, nil
}
