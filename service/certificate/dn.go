package certificate

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// attributeTypes maps the names of attribute types, in lower case, to their object identifiers: those of RFC 4514 §3, and those
// that programs write which show certificates.
var attributeTypes = map[string]string{
	"cn": "2.5.4.3", "sn": "2.5.4.4", "serialnumber": "2.5.4.5", "c": "2.5.4.6", "l": "2.5.4.7", "st": "2.5.4.8", "s": "2.5.4.8",
	"street": "2.5.4.9", "o": "2.5.4.10", "ou": "2.5.4.11", "title": "2.5.4.12", "postalcode": "2.5.4.17", "givenname": "2.5.4.42",
	"dc": "0.9.2342.19200300.100.1.25", "uid": "0.9.2342.19200300.100.1.1",
	"emailaddress": "1.2.840.113549.1.9.1", "e": "1.2.840.113549.1.9.1",
}

// name is a distinguished name in a form in which two are equal if they are the same name: a text for each relative
// distinguished name, the most specific one last, as in a certificate.
type name []string

// relative returns the text of a relative distinguished name, a set of attributes.
func relative(attributes []string) string {
	slices.Sort(attributes)
	return strings.Join(attributes, "+")
}

// attribute returns the text of one attribute.
func attribute(identifier, value string) string { return fmt.Sprintf("%s=%q", identifier, value) }

// matchDN reports whether a distinguished name in the form of RFC 4514 is the one in DER.
func matchDN(text string, der []byte) bool {
	want, err := parseDN(text)
	if err != nil {
		return false
	}
	got, err := decodeDN(der)
	return err == nil && len(got) > 0 && slices.Equal(want, got)
}

// decodeDN decodes a distinguished name (RFC 5280 §4.1.2.4), all of whose values must be texts.
func decodeDN(der []byte) (name, error) {
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &sequence); err != nil || len(rest) > 0 {
		return nil, errors.New("the subject is malformed")
	}
	decoded := make(name, len(sequence))
	for i, set := range sequence {
		attributes := make([]string, len(set))
		for j, a := range set {
			text, ok := a.Value.(string)
			if !ok {
				return nil, errors.New("the subject has a value that is not text")
			}
			attributes[j] = attribute(a.Type.String(), text)
		}
		decoded[i] = relative(attributes)
	}
	return decoded, nil
}

// parseDN parses a distinguished name in the form of RFC 4514, which begins with the most specific part.
//
// Two names are the same if they have the same relative names in the same order, each with the same attributes. Names of
// attribute types are compared without letter case or as object identifiers, values character by character, in whichever
// string type of ASN.1 the certificate has them. The matching rules of RFC 4517 would also ignore letter case and repeated
// blanks, and each authority would have to know that it must not issue certificates to two owners whose names differ in
// nothing else.
func parseDN(text string) (name, error) {
	var parsed name
	var attributes []string
	for rest := text; ; {
		a, separator, after, err := cutAttribute(rest)
		if err != nil {
			return nil, err
		}
		attributes = append(attributes, a)
		if separator != '+' {
			parsed = append(parsed, relative(attributes))
			attributes = nil
		}
		if separator == 0 {
			slices.Reverse(parsed)
			return parsed, nil
		}
		rest = after
	}
}

// cutAttribute parses the first attribute of text, and returns the separator after it, or 0, and the text after that.
func cutAttribute(text string) (parsed string, separator byte, rest string, err error) {
	kind, value, ok := strings.Cut(text, "=")
	if !ok {
		return "", 0, "", errors.New("is not a distinguished name such as CN=orders,O=Example")
	}
	kind = strings.Trim(kind, " ")
	identifier, ok := attributeTypes[strings.ToLower(kind)]
	if !ok {
		if identifier = kind; !isIdentifier(kind) {
			return "", 0, "", fmt.Errorf("has the attribute type %.40q, which is neither known nor an object identifier", kind)
		}
	}
	value = strings.TrimLeft(value, " ")
	cut := cutText
	if strings.HasPrefix(value, "#") {
		cut = cutHex
	}
	plain, length, err := cut(value)
	switch {
	case err != nil:
		return "", 0, "", err
	case plain == "" || !utf8.ValidString(plain):
		return "", 0, "", errors.New("has an attribute without a value, or one that is not UTF-8")
	}
	if length < len(value) {
		separator, rest = value[length], value[length+1:]
	}
	return attribute(identifier, plain), separator, rest, nil
}

// cutHex returns the text whose DER, after a #, is at the beginning of value, and its length there.
func cutHex(value string) (plain string, length int, err error) {
	length = len(value)
	if end := strings.IndexAny(value, ",+"); end >= 0 {
		length = end
	}
	der, err := hex.DecodeString(strings.TrimRight(value[1:length], " "))
	if err == nil {
		var rest []byte
		if rest, err = asn1.Unmarshal(der, &plain); len(rest) > 0 {
			err = errors.New("trailing data")
		}
	}
	if err != nil {
		return "", 0, errors.New("has a value in hexadecimal digits that is not the DER of a text")
	}
	return plain, length, nil
}

// isIdentifier reports whether text is an object identifier in dotted decimals.
func isIdentifier(text string) bool {
	parts := strings.Split(text, ".")
	return len(parts) > 1 && !slices.ContainsFunc(parts, func(part string) bool {
		return part == "" || len(part) > 9 || len(part) > 1 && part[0] == '0' || strings.Trim(part, "0123456789") != ""
	})
}

// cutText returns the text at the beginning of value without its escapes, and its length there (RFC 4514 §2.4).
func cutText(value string) (plain string, length int, err error) {
	var text []byte
	kept := 0 // up to here a blank at the end was escaped, and belongs to the text
	for length < len(value) && value[length] != ',' && value[length] != '+' {
		switch c := value[length]; {
		case strings.IndexByte(`";<>`, c) >= 0:
			return "", 0, fmt.Errorf("has the character %c without a backslash before it", c)
		case c != '\\':
			text = append(text, c)
			length++
			continue
		case length+1 < len(value) && strings.IndexByte(` "#+,;<=>\`, value[length+1]) >= 0:
			text = append(text, value[length+1])
			length += 2
		default:
			digits, err := hex.DecodeString(value[length+1 : min(length+3, len(value))])
			if err != nil || len(digits) != 1 {
				return "", 0, errors.New("has a backslash before neither a special character nor two hexadecimal digits")
			}
			text = append(text, digits[0])
			length += 3
		}
		kept = len(text)
	}
	return string(text[:kept]) + strings.TrimRight(string(text[kept:]), " "), length, nil
}
