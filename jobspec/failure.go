package jobspec

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// failure reads the failure block.
func (b *block) failure(f *sheaf.Failure) {
	b.threshold("tolerate", &f.Tolerate)
	var stop sheaf.Threshold
	if b.threshold("stop_after", &stop) {
		f.StopAfter = &stop
	}
	b.each("on_exit", "on_exit", 0, func(in *block) {
		var p sheaf.ExitPolicy
		in.wholes("codes", &p.Codes)
		in.text("action", &p.Action)
		in.end()
		f.OnExit = append(f.OnExit, p)
	})
	b.end()
}

func (c *checker) failure(f *sheaf.Failure) {
	c.threshold("failure.tolerate", "tolerate", f.Tolerate)
	if f.StopAfter != nil {
		c.threshold("failure.stop_after", "stop_after", *f.StopAfter)
	}
	seen := map[int]bool{}
	for i, p := range f.OnExit {
		at := fmt.Sprintf("failure.on_exit[%d]", i)
		if len(p.Codes) == 0 {
			c.bad(at+".codes", "codes is missing or empty", spanOf(at+".codes").String(), "write codes = [1, 2]")
		}
		for k, code := range p.Codes {
			field := fmt.Sprintf("%s.codes[%d]", at, k)
			c.whole(field, "an exit code", code)
			if seen[code] {
				c.bad(field, fmt.Sprintf("exit code %d is given twice", code), "", "give it in one on_exit block only")
			}
			seen[code] = true
		}
		c.oneOf(at+".action", "action", p.Action, sheaf.ActionRetry, sheaf.ActionFailPartition, sheaf.ActionFailJob, sheaf.ActionIgnore)
	}
}

func (c *checker) threshold(path, name string, t sheaf.Threshold) {
	if t.Count < 0 || t.Count > sheaf.MaxPartitions || t.Percent < 0 || t.Percent > 100 {
		c.bad(path, fmt.Sprintf("%s is %s", name, t), fmt.Sprintf("0 to %s, or 0%% to 100%%", grouped(sheaf.MaxPartitions)), `write a whole number of partitions, or a share such as "1%"`)
	}
}

func (w *writer) failure(f sheaf.Failure) {
	w.open("failure", "")
	w.threshold("tolerate", f.Tolerate, false)
	if f.StopAfter != nil {
		w.threshold("stop_after", *f.StopAfter, true)
	}
	for _, p := range f.OnExit {
		w.open("on_exit", "")
		w.wholes("codes", p.Codes)
		w.text("action", p.Action, "")
		w.close()
	}
	w.close()
}
