package guard

import (
	"os"

	"github.com/spf13/pflag"
)

// ReloadOn makes the server reload its settings on each signal. resolved are its flags.
func (srv *Server) ReloadOn(resolved *pflag.FlagSet, hangup <-chan os.Signal) (err error) {
	srv.reloader, err = newReloader(resolved, hangup)
	return err
}

// ParseRules is parseRules.
var ParseRules = parseRules
