package bacalhau

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/sheaf-run/agent/sheaf"
)

// inputs translates what is mounted into the task.
func (c *converter) inputs(v *value) {
	taken := map[string]bool{}
	for i, s := range v.list() {
		url := c.source(s.get("Source"))
		name := proper(s.get("Alias").text(""))
		if name == "" || taken[name] {
			name = "input"
			if i > 0 {
				name = fmt.Sprint("input", i+1)
			}
		}
		taken[name] = true
		mount := s.get("Target")
		if !path.IsAbs(mount.text("")) {
			c.fail(mount, sheaf.Invalid, "write the absolute path that the task reads", "the input has no Target")
		}
		c.job.Inputs = append(c.job.Inputs, sheaf.Input{Name: name, Source: url, Mount: path.Clean(mount.text(""))})
		c.twinless(s)
	}
}

// source is the URL of what an input, or a module, comes from.
func (c *converter) source(v *value) string {
	p := v.get("Params")
	defer func() {
		c.twinless(p)
		c.twinless(v)
	}()
	kind := v.get("Type")
	switch name := kind.text(""); {
	case oneOf(name, "s3"):
		return c.bucket(p)
	case oneOf(name, "ipfs"):
		return "ipfs://" + p.get("CID").text("")
	case oneOf(name, "urlDownload", "url"):
		url := p.get("URL")
		s := url.text("")
		if rest, ok := strings.CutPrefix(s, "http://"); ok {
			c.note(url, "read over https here: the page's certificate vouches for it")
			s = "https://" + rest
		}
		return s
	case oneOf(name, "local", "localDirectory"):
		dir := p.get("SourcePath")
		if !path.IsAbs(dir.text("")) {
			c.fail(dir, sheaf.Invalid, "write the absolute path on the nodes", "%q is no absolute path", dir.text(""))
		}
		if rw := p.get("ReadWrite"); oneOf(rw.text("false"), "true") {
			c.note(rw, "inputs are read-only here: write into an output")
		}
		c.note(dir, "the clients' configuration lists the directories that jobs may read: `client { file_root %q { } }`", path.Clean(dir.text("/")))
		return "file://" + path.Clean(dir.text("/"))
	default:
		c.fail(kind, sheaf.Unsupported, "s3, ipfs, urlDownload and local can be converted", "the source is %q", name)
		return ""
	}
}

// bucket is an S3 source. A wildcard at the end of its key becomes a glob.
func (c *converter) bucket(p *value) string {
	name, key := p.get("Bucket").text(""), p.get("Key").text("")
	if name == "" {
		c.fail(p.get("Bucket"), sheaf.Invalid, "name the bucket", "the s3 source has no Bucket")
	}
	c.reached(p, name)
	if v := p.get("ChecksumSHA256"); v.text("") != "" {
		c.note(v, "an object is read as it was listed when the run began, known by its ETag and size: left out")
	}
	if f := p.get("Filter"); f.text("") != "" {
		c.note(f, "objects are chosen by a glob, not by %q: write it into the split block", f.text(""))
	}
	if part := p.get("Partition"); !part.hollow() && !oneOf(part.get("Type").text("none"), "none", "") {
		if c.spread != nil {
			c.fail(part, sheaf.Unsupported, "partition one of the inputs", "two inputs are partitioned")
		}
		c.spread = part
	}
	if prefix, ok := strings.CutSuffix(key, "*"); ok && prefix != "" && !strings.HasSuffix(prefix, "/") {
		dir := ""
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir = prefix[:i+1]
		}
		c.filter = "/" + globQuote(prefix[len(dir):]) + "*"
		c.note(p.get("Key"), "the wildcard became the glob %q: a folder that it matches goes to one partition as a whole", c.filter)
		key = dir
	}
	key = strings.TrimSuffix(key, "*")
	if v := p.get("VersionID"); v.text("") != "" {
		if key != "" && !strings.HasSuffix(key, "/") {
			return "s3://" + name + "/" + key + "?versionId=" + v.text("")
		}
		c.note(v, "a version is one object's, and the Key is a prefix of some: left out")
	}
	return "s3://" + name + "/" + key
}

// reached notes what of a bucket is the clients' configuration here.
func (c *converter) reached(p *value, bucket string) {
	for _, x := range []string{"Endpoint", "Region"} {
		if v := p.get(x); v.text("") != "" {
			c.note(v, "how a bucket is reached is the clients' configuration: `client { s3 %q { %s = %q } }`", bucket, strings.ToLower(x), v.text(""))
		}
	}
}

var globSpecial = regexp.MustCompile(`[*?\[\]{}\\,]`)

func globQuote(s string) string { return globSpecial.ReplaceAllString(s, `\$0`) }

// group says by what of its name an object goes to a partition. There the
// names are hashed into Count partitions; here each group is one.
func (c *converter) group(v *value) {
	s := c.job.Split
	kind := v.get("Type")
	differ := func() {
		c.note(kind, "each group is one partition here, however many there are; Count has no meaning then")
		s.Partitions, s.GroupRest = 0, "keep"
	}
	switch name := kind.text(""); {
	case oneOf(name, "object"):
		c.note(kind, "objects are spread in the order of their names, in parts of nearly equal bytes, instead of by a hash")
	case oneOf(name, "regex"):
		s.GroupBy = v.get("Pattern").text("")
		if re, err := regexp.Compile(s.GroupBy); err == nil && re.NumSubexp() == 0 {
			s.GroupBy = "(" + s.GroupBy + ")"
		}
		if rest, ok := strings.CutPrefix(strings.TrimPrefix(s.GroupBy, "("), "^"); ok { // paths begin with a slash here
			s.GroupBy = strings.TrimSuffix(s.GroupBy, "^"+rest) + "^/" + rest
		}
		differ()
	case oneOf(name, "substring"):
		from, to := c.whole(v.get("StartIndex"), 0), c.whole(v.get("EndIndex"), 0)
		if from < 0 || to <= from || to > 1000 {
			c.fail(v, sheaf.Invalid, "write 0 <= StartIndex < EndIndex", "characters %d to %d are none", from, to)
			return
		}
		s.GroupBy = fmt.Sprintf("^/.{%d}(.{%d})", from, to-from)
		differ()
	case oneOf(name, "date"):
		s.GroupBy = "^/(" + dateExpression(v.get("DateFormat").text("2006-01-02")) + ")"
		differ()
	default:
		c.fail(kind, sheaf.Unsupported, "object, regex, substring and date can be converted", "the partitioning is %q", name)
	}
	c.twinless(v)
}

var dateParts = regexp.MustCompile(`2006|01|02|15|04|05|06`)

// dateExpression matches what Go's layout of a date formats.
func dateExpression(layout string) string {
	at, out := 0, ""
	for _, m := range dateParts.FindAllStringIndex(layout, -1) {
		out += regexp.QuoteMeta(layout[at:m[0]]) + fmt.Sprintf("[0-9]{%d}", m[1]-m[0])
		at = m[1]
	}
	return out + regexp.QuoteMeta(layout[at:])
}

// module is where a WASM module comes from: a source of its own, or the input that is mounted there.
func (c *converter) module(v *value) {
	switch {
	case v.text("") != "":
		for i, in := range c.job.Inputs {
			if v.text("") == in.Mount || v.text("") == in.Name {
				c.job.Task.Config["module"] = in.Source
				c.job.Inputs = append(c.job.Inputs[:i], c.job.Inputs[i+1:]...)
				return
			}
		}
		c.note(v, "is taken from the jobspec's folder: put the module there")
		c.job.Task.Config["module"] = path.Base(v.text(""))
	case v.get("Source").there():
		c.job.Task.Config["module"] = c.source(v.get("Source"))
		v.get("Target")
		v.get("Alias")
		c.twinless(v)
	default:
		c.fail(v, sheaf.Invalid, "name it by a Source with Type and Params", "the module has no Source")
	}
}

func (c *converter) outputs(v *value) {
	for _, s := range v.list() {
		name, dir := s.get("Name"), s.get("Path")
		if !path.IsAbs(dir.text("")) {
			c.fail(dir, sheaf.Invalid, "write the absolute path that the task fills", "the result has no Path")
		}
		c.job.Outputs = append(c.job.Outputs, sheaf.Output{Name: c.named(name), Path: path.Clean(dir.text("/"))})
		c.twinless(s)
	}
}

// carFiles is where results are published that went to an IPFS node: a job file names no place.
const carFiles = "car:///srv/results"

func (c *converter) publisher(v *value) {
	p := v.get("Params")
	switch name := v.get("Type").text(""); {
	case name == "":
	case oneOf(name, "local"), oneOf(name, "s3managed"):
		c.note(v, "results stay with the cluster anyhow: `agent job results` brings them")
		p.get("TTL")
	case oneOf(name, "ipfs", "s3") && len(c.job.Outputs) == 0:
		c.note(v, "there are no ResultPaths to publish: `agent job logs` has what the task printed")
		return
	case oneOf(name, "ipfs"):
		c.job.Publish = &sheaf.Publish{To: carFiles}
		c.note(v, "the merged result becomes a CAR file and has a CID, which `agent job status` shows; `ipfs dag import FILE` takes it to a node. "+
			"%q is a directory of your choice, which a client's configuration allows: `client { file_root %q { writable = true } }`", carFiles, strings.TrimPrefix(carFiles, "car://"))
	case oneOf(name, "s3"):
		bucket, key := p.get("Bucket").text(""), p.get("Key")
		c.reached(p, bucket)
		c.job.Publish = &sheaf.Publish{To: "s3://" + bucket + "/" + c.prefix(key)}
		if e := p.get("Encoding"); !oneOf(e.text(""), "", "plain") {
			c.note(e, "results are published as files, not as one archive")
		}
		if z := p.get("Compress"); oneOf(z.text(""), "true") {
			c.note(z, "results are published as files, not as one archive")
		}
	default:
		c.note(v, "%q has no twin here and was left out", name)
	}
	c.twinless(p)
	c.twinless(v)
}

// prefix is the key under which results are published, up to what differs between executions.
func (c *converter) prefix(key *value) string {
	s := key.text("")
	if i := strings.IndexByte(s, '{'); i >= 0 {
		s = s[:strings.LastIndexByte(s[:i], '/')+1]
		c.note(key, "%q is filled in nowhere: the merged result is published to %q, with a manifest that names its run", key.text(""), s)
	}
	return s
}
