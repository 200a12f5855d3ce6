package tlsfiles

import "time"

// ForgetCheck makes the next connection check the files.
func (f *Files) ForgetCheck() { f.checked = time.Time{} }
