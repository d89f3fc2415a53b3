package straggler

import (
	"math"
	"time"
)

// Ahead is what is left of a run, for its ETA.
type Ahead struct {
	Backups   bool // what becomes slow gets a second attempt
	Waiting   int  // partitions that have not begun, at nodes or not placed
	Durations *Sketch
	Running   []Running // the longest first, at most MaxLooked
	Slots     int       // executions of the run that run at once, where they all have work; 0 is not known
	// Ends is how many ended in the last Within.
	Ends   int
	Within time.Duration
}

const (
	// unsure is the relative error of a rate that was measured well: nodes come and go, and
	// partitions that are alike are not equal.
	unsure = 0.05
	// deviations of the estimate of what waits are in the range, to either side.
	deviations = 1.5
	// fewEnds in a window tell less of a rate than what runs at once and how long each takes.
	fewEnds = 32
	// early and late are how likely the last to end is over before the tail's part of the range begins, and
	// before it ends.
	early, late = 0.1, 0.93
)

// ETA is a range in which the run will be over, as likely as nine times in ten, where anything can be said.
func ETA(a Ahead) (low, high time.Duration, ok bool) {
	d := a.Durations
	mean := d.mean()
	rate, relative := a.rate(mean)
	if rate <= 0 && (a.Waiting > 0 || d.n == 0) {
		return 0, 0, false
	}
	var from, to float64 // ms
	if a.Waiting > 0 {
		middle := float64(a.Waiting) / rate
		off := unsure + deviations*math.Hypot(relative, d.variation()/math.Sqrt(float64(a.Waiting)))
		from, to = middle*max(1-off, 0), middle*(1+off)
	}
	runs := max(a.Slots, len(a.Running))
	if a.Waiting > 0 {
		runs = min(max(runs, 1), a.Waiting+len(a.Running))
	} else {
		runs = len(a.Running)
	}
	if runs > 0 && d.n > 0 {
		l, h := a.tail(runs)
		from, to = from+l, to+h
	}
	for i := range a.Running {
		x := &a.Running[i]
		e := d.of(x.Class)
		if e.shape == nil {
			continue
		}
		age := float64(x.Age.Milliseconds())
		from = max(from, e.residual(age, early))
		if most := e.residual(age, late); !a.Backups || x.Doubled {
			to = max(to, most)
		}
	}
	if to <= 0 {
		return 0, 0, d.n > 0
	}
	return milliseconds(from), milliseconds(to), true
}

// rate is partitions a millisecond, and how far off it may be, relatively.
func (a *Ahead) rate(mean float64) (perMs, relative float64) {
	if a.Ends >= fewEnds || a.Ends > 0 && (a.Slots == 0 || mean == 0) {
		return float64(a.Ends) / max(float64(a.Within.Milliseconds()), 1), 1 / math.Sqrt(float64(a.Ends))
	}
	if a.Slots > 0 && mean > 0 {
		return float64(a.Slots) / mean, a.Durations.variation() / math.Sqrt(float64(a.Durations.n))
	}
	return 0, 0
}

// tail is how long the last of so many that run at once will still take when no more wait. With
// backups both attempts must be slow for the partition to be.
func (a *Ahead) tail(runs int) (low, high float64) {
	at := func(p float64) float64 {
		longer := 1 - math.Pow(p, 1/float64(runs))
		e := a.Durations.whole()
		if !a.Backups {
			return e.quantile(1 - longer)
		}
		typical := e.quantile(0.5)
		return min(e.quantile(1-longer), max(timesTypical*typical, float64(leastAge.Milliseconds()))+e.quantile(1-math.Sqrt(longer)))
	}
	return at(early), at(late)
}

// whole is the durations of all classes together.
func (s *Sketch) whole() estimate {
	sum := &shape{n: s.n, sumMs: s.sumMs}
	for _, c := range s.byClass {
		if c != nil {
			for i, n := range c.counts {
				sum.counts[i] += n
			}
		}
	}
	return estimate{sum, 1}
}

// variation is the deviation of durations, relative to their mean.
func (s *Sketch) variation() float64 {
	if s.n == 0 {
		return 0
	}
	mean, square := s.mean(), 0.0
	if mean == 0 {
		return 0
	}
	for i, n := range s.whole().counts {
		d := middles[i] - mean
		square += d * d * float64(n)
	}
	return math.Sqrt(square/float64(s.n)) / mean
}

// residual is how much longer something will run that has been running for ms, but for one of 1-q.
func (e estimate) residual(ms, q float64) float64 {
	if beyond := e.longer(ms); beyond >= fewLonger {
		return max(e.above(ms, beyond, q)-ms, 0)
	}
	return ms * (math.Pow(1-q, -1/paretoShape) - 1)
}

func milliseconds(ms float64) time.Duration {
	if ms > float64(math.MaxInt64/2/time.Millisecond) {
		return math.MaxInt64 / 2
	}
	return time.Duration(ms * float64(time.Millisecond))
}
