// Package conflict finds, as outputs of a run are committed, which of them cannot be merged. An Index
// holds a hash for each path and says which earlier output may meet a new one; Between compares two outputs byte for
// byte. So nobody is named for a hash that two paths share. What is beyond the bounds here is found by the merge,
// whose rules these are (package data/output/merge): a path that two partitions wrote to an output that is merged by union and holds
// conflicts to be errors, and a file in one where another has a directory, under union and concat alike. The rarer kinds
// (links that differ under concat, names that meet once they are renamed) are left to the merge.
package conflict

import (
	"hash/maphash"
	"iter"

	"github.com/sheaf-run/agent/sheaf"
)

// Room is how many paths several indexes may hold together.
type Room struct{ Left int }

// Index is the paths of a run's outputs. It is for one goroutine.
type Index struct {
	rules map[string]bool // by output that is looked at; true where two files of one path are in conflict
	room  *Room
	seen  map[uint64]entry
	full  bool
}

// entry is the partition that first had a path, and whether as a directory.
type entry uint32

func entryOf(partition int, dir bool) entry {
	e := entry(partition) << 1
	if dir {
		e |= 1
	}
	return e
}

func (e entry) partition() int { return int(e >> 1) }
func (e entry) dir() bool      { return e&1 != 0 }

// seed makes hashes nobody can aim at.
var seed = maphash.MakeSeed()

// Watches reports whether outputs of the job can be in conflict, as far as this package knows.
func Watches(job *sheaf.Job) bool { return len(rulesOf(job)) > 0 }

func rulesOf(job *sheaf.Job) map[string]bool {
	var rules map[string]bool
	for _, o := range job.Outputs {
		union := o.Merge == sheaf.MergeUnion || o.Merge == ""
		strict := union && (o.OnConflict == sheaf.ConflictError || o.OnConflict == "")
		if strict || o.Merge == sheaf.MergeConcat {
			if rules == nil {
				rules = map[string]bool{}
			}
			rules[o.Name] = strict
		}
	}
	return rules
}

// New makes the index of a run of the job, which shares the room with others.
func New(job *sheaf.Job, room *Room) *Index {
	return &Index{rules: rulesOf(job), room: room, seen: map[uint64]entry{}}
}

// Full reports whether there was no room for a path: what meets that one is not found here.
func (x *Index) Full() bool { return x.full }

// Close gives the room back.
func (x *Index) Close() {
	x.room.Left += len(x.seen)
	x.seen = nil
}

// maxMeets is how many partitions Add names: mostly one is enough to know.
const maxMeets = 8

// Add takes the files of a partition, in the order of their manifest, and gives the partitions before it that they may be
// in conflict with, at most maxMeets.
func (x *Index) Add(partition int, files []sheaf.File) (meets []int) {
	var last sheaf.File
	for i := range files {
		f := &files[i]
		strict, watched := x.rules[f.Output]
		if !watched {
			continue
		}
		for dir := range parents(f.Path) {
			if last.Output == f.Output && len(last.Path) > len(dir) && last.Path[len(dir)] == '/' && last.Path[:len(dir)] == dir {
				continue // of the file before it, too
			}
			meets = x.look(f.Output, dir, partition, true, strict, meets)
		}
		meets = x.look(f.Output, f.Path, partition, false, strict, meets)
		last = *f
	}
	return meets
}

// parents are the directories above a path, from the outermost on.
func parents(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(path) {
			if path[i] == '/' && !yield(path[:i]) {
				return
			}
		}
	}
}

func (x *Index) look(output, path string, partition int, dir, strict bool, meets []int) []int {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(output) // which cannot fail, as the two that follow
	_ = h.WriteByte(0)
	_, _ = h.WriteString(path)
	key := h.Sum64()
	was, known := x.seen[key]
	switch {
	case !known && x.room.Left <= 0:
		x.full = true
	case !known:
		x.room.Left--
		x.seen[key] = entryOf(partition, dir)
	case was.partition() == partition || dir && was.dir() || !dir && !was.dir() && !strict:
	case len(meets) < maxMeets && (len(meets) == 0 || meets[len(meets)-1] != was.partition()):
		return append(meets, was.partition())
	}
	return meets
}

// Between is what keeps the outputs of two partitions from being merged: the first such path, bytewise by output,
// then path; false is where there is none.
func Between(job *sheaf.Job, a, b int, filesA, filesB []sheaf.File) (sheaf.OutputConflict, bool) {
	if a > b {
		a, b, filesA, filesB = b, a, filesB, filesA
	}
	rules := rulesOf(job)
	var found *sheaf.OutputConflict
	note := func(n name, dir bool) {
		if found == nil || n.output < found.Output || n.output == found.Output && n.path < found.Path {
			found = &sheaf.OutputConflict{Output: n.output, Path: n.path, Partitions: [2]int{a, b}, Directory: dir}
		}
	}
	of, in := pathsOf(filesA), pathsOf(filesB)
	for n := range of.files {
		strict, watched := rules[n.output]
		switch {
		case !watched:
		case strict && in.files[n]:
			note(n, false)
		case in.dirs[n]:
			note(n, true)
		}
	}
	for n := range in.files {
		if _, watched := rules[n.output]; watched && of.dirs[n] {
			note(n, true)
		}
	}
	if found == nil {
		return sheaf.OutputConflict{}, false
	}
	return *found, true
}

type name struct{ output, path string }

// paths are those of one partition.
type paths struct{ files, dirs map[name]bool }

func pathsOf(files []sheaf.File) paths {
	p := paths{make(map[name]bool, len(files)), map[name]bool{}}
	for i := range files {
		f := &files[i]
		p.files[name{f.Output, f.Path}] = true
		for dir := range parents(f.Path) {
			p.dirs[name{f.Output, dir}] = true
		}
	}
	return p
}
