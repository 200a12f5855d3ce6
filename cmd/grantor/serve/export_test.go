package serve

func (srv *Server) Leave() { srv.ports.Leave() }

func (srv *Server) RedisURL() string { return srv.settings.Redis }

const (
	MinGCPercent = minGCPercent
	MaxGCPercent = maxGCPercent
	RemoteTraces = remoteTraces
)

// Sampler is sampler.
var Sampler = sampler
