package command

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/sheaf-run/agent/api"
)

// provenance says where a file of the result comes from.
func (e *env) provenance(ctx context.Context, client *api.Client, run, path string, most int) error {
	all := struct {
		api.ProvenanceFile
		MadeOf []api.ProvenancePart `json:"made_of"`
	}{MadeOf: []api.ProvenancePart{}}
	var ids []string
	var err error
	path = strings.TrimPrefix(path, "outputs/") // as it stands in the folder that -o writes
	all.ProvenanceFile, err = client.Provenance(ctx, run, path, api.ProvenanceOptions{Parts: most}, func(p api.ProvenancePart) error {
		all.MadeOf = append(all.MadeOf, p)
		ids = append(ids, fmt.Sprint(p.Partition))
		return nil
	})
	if err != nil {
		return err
	}
	if ok, err := e.shaped(all, ids...); ok {
		return err
	}
	f := all.ProvenanceFile
	fmt.Fprintf(e.out, "%s\n", printable(strings.Trim(f.Output+"/"+f.Path, "/")))
	about := [][2]string{{"size", humanize.IBytes(uint64(f.Size))}, {"sha256", f.SHA256}, {"link to", f.Link}}
	output := fmt.Sprintf("%s, merge = %q", f.Output, f.Merge)
	if f.Output == "" { // printed by tasks
		about, output = nil, ""
	}
	if f.Files > 0 {
		about[0][1] += " in " + counted(f.Files, "file")
	}
	var config strings.Builder
	enc := json.NewEncoder(&config)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f.Config); err != nil {
		return err
	}
	made := f.Partitions.String()
	if f.More {
		made += ",…"
	}
	about = append(about,
		[2]string{"run", fmt.Sprintf("%s of job %q", f.Run, f.Job)}, [2]string{"output", output},
		[2]string{"partitions", made}, [2]string{"task", fmt.Sprintf("%s, by driver %s", f.Task, f.Driver)}, [2]string{"config", strings.TrimSuffix(config.String(), "\n")}, [2]string{"image", f.Image},
	)
	for _, x := range about {
		if x[1] != "" {
			fmt.Fprintf(e.out, "  %-11s %s\n", x[0], printable(x[1]))
		}
	}
	for _, p := range all.MadeOf {
		e.part(e.out, f, p)
	}
	if n := f.Parts - len(all.MadeOf); n > 0 {
		e.hint("and %s more: -n names more of them", grouped3(n))
	}
	return nil
}

func (e *env) part(w io.Writer, f api.ProvenanceFile, p api.ProvenancePart) {
	what := fmt.Sprintf("%s at byte %d", humanize.IBytes(uint64(p.Size)), p.Offset)
	if f.Files > 0 {
		what = humanize.IBytes(uint64(p.Size)) + " in " + counted(p.Files, "file")
	}
	if f.Output == "" {
		what = "what it printed"
	}
	fmt.Fprintf(w, "partition %d, attempt %d, on node %s (%.8s): %s\n", p.Partition, p.Attempt, printable(cmp.Or(p.NodeName, "?")), p.Node, what)
	if m := p.MadeBy; m != nil {
		fmt.Fprintf(w, "  made by partition %d of run %s, and taken over\n", m.Partition, m.Run)
	}
	if p.Path != "" {
		fmt.Fprintf(w, "  as %s\n", printable(p.Path))
	}
	if p.SHA256 != "" && f.SHA256 == "" {
		fmt.Fprintf(w, "  sha256 %s\n", p.SHA256)
	}
	if p.Key != "" {
		fmt.Fprintf(w, "  of group %s\n", printable(p.Key))
	}
	for _, a := range p.Atoms {
		fmt.Fprintf(w, "  read %s  %s  %s\n", printable(a.Path), humanize.IBytes(uint64(a.Size)), printable(a.Identity))
	}
	if n := p.AtomsAll - len(p.Atoms); n > 0 {
		fmt.Fprintf(w, "  and %s more\n", grouped3(n))
	}
}
