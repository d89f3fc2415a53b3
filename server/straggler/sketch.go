package straggler

import "math/bits"

const (
	// perOctave buckets are there for each doubling of a duration: an estimate is off by 9 % at most.
	perOctave = 4
	// buckets reach to 2^40 ms, 34 years.
	buckets = 40 * perOctave
	// classes of shards by size: one for those without, and one for each factor of four from 4 KiB to 16 TiB.
	classes = 18
	// smallest shards, up to so many bytes, are one class.
	smallest = 4 << 10
	// enough ends of a class are needed before it speaks for itself.
	enough = 8
)

// Sketch is how long the partitions of one run took that succeeded: counts by duration on a
// scale of factors, for each class of shards by size. Its size is bounded, some 700 bytes for each
// class that was seen. The zero value is empty.
type Sketch struct {
	byClass [classes]*shape
	n       int
	sumMs   float64
}

// shape is the durations of one class.
type shape struct {
	n      int
	sumMs  float64
	counts [buckets]uint32
}

// Class is the class of a shard of so many bytes; 0 is not known.
func Class(bytes int64) uint8 {
	if bytes <= 0 {
		return 0
	}
	return uint8(1 + min((bits.Len64(uint64(bytes-1)/smallest)+1)/2, classes-2))
}

// Add notes that a partition of a class took so long.
func (s *Sketch) Add(class uint8, ms uint32) {
	at := min(class, classes-1)
	c := s.byClass[at]
	if c == nil {
		c = &shape{}
		s.byClass[at] = c
	}
	c.n++
	c.sumMs += float64(ms)
	c.counts[bucket(ms)]++
	s.n++
	s.sumMs += float64(ms)
}

// Clone is a copy.
func (s *Sketch) Clone() Sketch {
	c := *s
	for i, x := range s.byClass {
		if x != nil {
			is := *x
			c.byClass[i] = &is
		}
	}
	return c
}

// Len is how many durations were added.
func (s *Sketch) Len() int { return s.n }

// SumMs is all durations together.
func (s *Sketch) SumMs() float64 { return s.sumMs }

// bucket counts in quarters of an octave from 1 ms.
func bucket(ms uint32) int {
	if ms < 4 {
		return [...]int{0, 0, perOctave, perOctave + 2}[ms]
	}
	n := bits.Len32(ms) - 1
	return perOctave*n + int(ms>>(n-2))&3
}

// middles are durations in the middle of each bucket, in ms.
var middles = func() (all [buckets]float64) {
	for i := range all {
		low := float64(uint64(1) << (i / perOctave))
		all[i] = low * (1 + (float64(i%perOctave)+0.5)/perOctave)
	}
	return all
}()

// of gives what is known of a class: itself where enough ended, else the nearest of which
// enough did, else any. Larger shards than those are taken to last as much longer as they are larger.
func (s *Sketch) of(class uint8) estimate {
	at := int(min(class, classes-1))
	for _, need := range []int{enough, 1} {
		for away := range classes {
			for _, i := range []int{at - away, at + away} {
				if i < 0 || i >= classes || s.byClass[i] == nil || s.byClass[i].n < need {
					continue
				}
				scale := 1.0
				if 0 < i && i < at {
					scale = float64(uint64(1) << (2 * away))
				}
				return estimate{s.byClass[i], scale}
			}
		}
	}
	return estimate{}
}

// estimate is how long partitions of a class take: a shape, times a factor.
type estimate struct {
	*shape
	scale float64
}

// quantile is the duration in ms that a share q stays below.
func (e estimate) quantile(q float64) float64 {
	if e.shape == nil || e.n == 0 {
		return 0
	}
	return e.above(0, 0, q)
}

// above is the duration that a share q of those longer than ms stays below; beyond are those.
func (e estimate) above(ms float64, beyond int, q float64) float64 {
	if beyond == 0 {
		beyond = e.longer(ms)
	}
	left := q * float64(beyond)
	for i, n := range e.counts {
		at := middles[i] * e.scale
		if at < ms || n == 0 {
			continue
		}
		if left -= float64(n); left <= 0 {
			return at
		}
	}
	return ms
}

// longer is how many took longer than ms.
func (e estimate) longer(ms float64) int {
	n := 0
	for i, c := range e.counts {
		if middles[i]*e.scale > ms {
			n += int(c)
		}
	}
	return n
}

const (
	// fewLonger ended ones say nothing any more about what has been running longer than they took.
	fewLonger = 5
	// paretoShape is that of the Pareto distribution by which such a one is judged: the longer it has
	// been running, the longer it will.
	paretoShape = 1.5
)

// remaining is how much longer something will run that has been running for ms, as likely as not.
func (e estimate) remaining(ms float64) float64 {
	if e.shape == nil || e.n == 0 {
		return 0
	}
	return e.residual(ms, 0.5)
}
