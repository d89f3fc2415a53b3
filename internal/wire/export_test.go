package wire

import "time"

// BeSilent lets connections of a mux that does not run yet be silent for so long.
func (m *Mux) BeSilent(most time.Duration) { m.silence = most }
