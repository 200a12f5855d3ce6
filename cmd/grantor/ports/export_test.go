package ports

// MaxOperationsPerSource is maxOperationsPerSource.
const MaxOperationsPerSource = maxOperationsPerSource
