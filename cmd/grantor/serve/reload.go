package serve

import (
	"context"
	"os"

	"github.com/spf13/pflag"

	"github.com/grantorhq/grantor/cmd/grantor/reload"
)

// reloads are all settings that SIGHUP applies, in this order. The manifest comes last because applying it can still
// fail, in part: a broken record must not keep a limit from being tightened.
var reloads = reload.Groups[*Server, Settings]{
	{Settings: []string{"tls-cert-file", "tls-key-file", "tls-client-ca-file"}, Prepare: reloadTLS},
	{Settings: []string{"client-certificate-ca-file"}, Prepare: reloadAuthorities},
	{Settings: []string{"log-level"}, Prepare: reloadLogLevel},
	{Settings: []string{
		"failures-per-client", "failures-per-source", "tokens-per-client", "tokens-period", "tokens-mode", "requests-per-source",
		"streams-per-source",
	}, Prepare: reloadLimits},
	{Settings: []string{"apply"}, Prepare: reloadManifest},
}

// newReloader records the settings before the server starts, because the server may adjust them.
func newReloader(resolved *pflag.FlagSet, hangup <-chan os.Signal) (*reload.Reloader[*Server, Settings], error) {
	return reload.New(resolved, reload.Config[*Server, Settings]{
		Groups: reloads, Declare: (*Settings).Declare, Hangup: hangup,
		Adjust: func(s *Settings) {
			if s.dev {
				s.develop()
			}
		},
	})
}

func reloadManifest(ctx context.Context, srv *Server, next *Settings) (func() error, error) {
	if next.apply == "" {
		return func() error { return nil }, nil
	}
	m, err := next.readManifest(ctx)
	if err != nil {
		return nil, err
	}
	return func() error {
		if err := srv.applyManifest(ctx, m); err != nil {
			return err
		}
		return srv.service.CatchUp(ctx) // "reloaded" in the log promises that the clients' new secrets authenticate them here
	}, nil
}

func reloadTLS(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	return srv.ports.PrepareTLS(next.tlsPaths(), srv.log)
}

func reloadLogLevel(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	level, err := next.monitoring.Level()
	return func() error { srv.level.Set(level); return nil }, err
}

func reloadLimits(_ context.Context, srv *Server, next *Settings) (func() error, error) {
	return func() error { srv.service.SetLimits(next.limits()); return nil }, nil
}
