package monitoring

// RemoteTraces is remoteTraces.
const RemoteTraces = remoteTraces

// Sampler is sampler.
var Sampler = sampler
