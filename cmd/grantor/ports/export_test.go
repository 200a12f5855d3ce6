package ports

import (
	"time"
)

func (f *TLSFiles) ForgetCheck() { f.checked = time.Time{} }

const MaxOperationsPerSource = maxOperationsPerSource
