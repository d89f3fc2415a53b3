package jobspec

import (
	"bytes"

	"golang.org/x/text/unicode/norm"

	"github.com/sheaf-run/agent/sheaf"
)

// warnUnnormalized warns where the source is not in NFC: HCL's strings always
// are, so that a name written in another form may not be byte for byte what was meant.
func (d *decoder) warnUnnormalized(src Source) {
	if norm.NFC.IsNormal(src.Data) {
		return
	}
	offset := 0
	for line := range bytes.Lines(src.Data) {
		if at := norm.NFC.QuickSpan(line); at < len(line) && !norm.NFC.IsNormal(line) {
			d.warnings = append(d.warnings, pointAt(src.Name, src.Data, offset+at, offset+at+1, &sheaf.Error{
				Msg: "text is not in Unicode's composed form (NFC), and is read as if it were", Hint: "files whose names differ only in that are matched, with a warning"}))
			return
		}
		offset += len(line)
	}
}
