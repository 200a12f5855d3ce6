package registry

import "context"

// WriteUses writes the recorded uses.
func (u *Usage) WriteUses(ctx context.Context) error { return u.write(ctx) }

// MaxUses is the maximum number of uses that wait to be written.
const MaxUses = maxUses

// Config returns the configuration, which a test may change before the Editor is used.
func (e *Editor) Config() *Config { return e.config }
