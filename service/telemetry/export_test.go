package telemetry

// MostAskers is how many callers are added up at the most.
const MostAskers = mostAskers
