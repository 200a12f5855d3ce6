package doctor

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// NewCommandAt returns the command with a clock.
func NewCommandAt(now func() time.Time) *cobra.Command {
	return (&options{now: now}).command()
}

type (
	Check    = check
	Outcome  = outcome
	Severity = severity
	Release  = release
	Flaw     = flaw
)

const (
	IsError   = severityError
	IsWarning = severityWarning
	IsNote    = severityNote
	IsFine    = severityOK
)

var (
	Checks         = checks
	NeededCommands = neededCommands
	RedisFlaws     = redisFlaws
	ValkeyFlaws    = valkeyFlaws

	Flaws        = flaws
	ParseVersion = parseVersion
	Software     = software
)

// SharedFlags returns the flags of the settings that grantor serve has too.
func SharedFlags() *pflag.FlagSet {
	flags := pflag.NewFlagSet("shared", pflag.ContinueOnError)
	(&options{}).declareShared(flags)
	return flags
}
