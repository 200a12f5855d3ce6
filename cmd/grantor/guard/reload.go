package guard

import (
	"context"
	"os"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/reload"
)

// reloads are all settings that SIGHUP applies.
var reloads = reload.Groups[*Server, Settings]{
	{Settings: []string{"tls-cert-file", "tls-key-file", "tls-client-ca-file"}, Prepare: reloadTLS},
	{Settings: []string{"log-level"}, Prepare: reloadLogLevel},
	{Settings: []string{"rules", "descriptor-set"}, Prepare: reloadRules},
}

func newReloader(resolved *pflag.FlagSet, hangup <-chan os.Signal) (*reload.Reloader[*Server, Settings], error) {
	return reload.New(resolved, reload.Config[*Server, Settings]{Groups: reloads, Declare: (*Settings).Declare, Hangup: hangup})
}

func reloadTLS(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	return srv.ports.PrepareTLS(next.tlsPaths(), srv.log)
}

func reloadLogLevel(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	level, err := next.monitoring.Level()
	return func() error { srv.level.Set(level); return nil }, err
}

// reloadRules reads the files of rules and descriptors. Both make one table, which replaces the previous one at once.
func reloadRules(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	next.audience = srv.settings.audience // another one needs a restart
	rules, err := next.readRules()
	if err != nil {
		return nil, err
	}
	return func() error {
		srv.guard.SetTable(rules.table)
		srv.logRules(rules)
		return nil
	}, nil
}
