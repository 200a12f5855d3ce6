package guard

// NormalizePath returns the form in which a path is compared.
func NormalizePath(raw string) (string, error) {
	normal, err := normalizePath(raw)
	return normal.path, err
}

// NormalizeHost returns the form in which a host is compared.
var NormalizeHost = normalizeHost

// Table returns the routes.
func (g *Guard) Table() *Table { return g.table.Load() }
