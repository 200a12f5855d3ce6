package telemetry

// MaxCallers is the maximum number of callers whose introspections are aggregated at a time.
const MaxCallers = maxCallers
