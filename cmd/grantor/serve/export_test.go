package serve

// Leave reports that the server is about to stop, without stopping it.
func (srv *Server) Leave() { srv.ports.Leave() }

// RedisURL returns the URL of the Redis, which may be the embedded one.
func (srv *Server) RedisURL() string { return srv.settings.Redis }

// The constants that the tests compare with.
const (
	MinGCPercent = minGCPercent
	MaxGCPercent = maxGCPercent
)
