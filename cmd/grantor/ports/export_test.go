package ports

import "time"

// ForgetCheck makes the next handshake check the files.
func (f *TLSFiles) ForgetCheck() { f.checked = time.Time{} }

// MaxOperationsPerSource is maxOperationsPerSource.
const MaxOperationsPerSource = maxOperationsPerSource
