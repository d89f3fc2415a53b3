package jobspec

import (
	"fmt"

	"github.com/sheaf-run/agent/sheaf"
)

// mebibyte is what a bare number of memory or disk counts.
const mebibyte sheaf.Size = 1 << 20

// resources reads a resources block.
func (b *block) resources(r *sheaf.Resources) {
	b.whole("cpu", &r.CPU)
	b.size("memory", mebibyte, &r.Memory)
	b.size("disk", mebibyte, &r.Disk)
	b.whole("pids", &r.Pids)
	b.each("device", "devices", 1, func(in *block) {
		d := sheaf.Device{Name: in.label, Count: 1}
		in.whole("count", &d.Count)
		in.end()
		r.Devices = append(r.Devices, d)
	})
	b.end()
}

func (c *checker) resources(path string, r *sheaf.Resources) {
	c.whole(path+".cpu", "cpu", r.CPU)
	c.size(path+".memory", "memory", r.Memory)
	c.size(path+".disk", "disk", r.Disk)
	c.whole(path+".pids", "pids", r.Pids)
	for i, d := range r.Devices {
		at := fmt.Sprintf("%s.devices[%d]", path, i)
		if d.Name == "" || len(d.Name) > sheaf.MaxNameLen {
			c.bad(at+".name", fmt.Sprintf("device name %s is empty or too long", quoted(d.Name)), fmt.Sprintf("%d bytes", sheaf.MaxNameLen), `write a kind of device, as in "nvidia/gpu"`)
		}
		c.whole(at+".count", "count", d.Count)
	}
}

func (w *writer) resources(r sheaf.Resources) {
	w.open("resources", "")
	w.whole("cpu", r.CPU, defaultCPU)
	w.size("memory", r.Memory, defaultMemory)
	w.size("disk", r.Disk, defaultDisk)
	w.whole("pids", r.Pids, defaultPids)
	for _, d := range r.Devices {
		w.open("device", d.Name)
		w.whole("count", d.Count, 1)
		w.close()
	}
	w.close()
}
