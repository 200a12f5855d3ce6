package migrate

import (
	"bytes"
)

// Convert converts an export of a server as the command does, with a default resource.
func Convert(server string, export []byte, fallback string) (manifest, report string, err error) {
	whole, err := parseExport("export.json", export)
	if err != nil {
		return "", "", err
	}
	i := newImporter(server)
	i.fallback = fallback
	if err := i.readRecords(whole); err != nil {
		return "", "", err
	}
	text, err := i.manifest()
	if err != nil {
		return "", "", err
	}
	var out bytes.Buffer
	i.report(&out)
	return string(text), out.String(), nil
}

// readRecords reads an export as that of the importer's server.
func (i *importer) readRecords(whole value) error {
	if i.server == "hydra" {
		records, err := i.hydraRecords(whole)
		if err != nil {
			return err
		}
		return i.hydra(records)
	}
	if i.server == "keycloak" {
		return i.keycloak(whole)
	}
	applications, scopes, err := i.openIddictRecords(whole)
	if err != nil {
		return err
	}
	return i.openIddict(applications, scopes)
}

// ParseTimeSpan is parseTimeSpan.
var ParseTimeSpan = parseTimeSpan
