package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
)

// TestTarget holds the target for a few seeds; `go run ./e2e/tails` shows it for more.
func TestTarget(t *testing.T) {
	var all [][]outcome
	for m := range backups + 1 {
		all = append(all, simulations(loads[0], m, map[int]int{nothing: 1, takeBack: 1, backups: 3}[m]))
	}
	// Here a second attempt is slow for long as well.
	both := simulate(setup{nodes: nodes, slots: 1, tasks: tasks, measures: backups, seed: 15, load: loads[0]})
	if all[backups] = append(all[backups], both); both.givenUp == 0 {
		t.Error("no second attempt was given up")
	}
	for m, list := range all {
		for i := range list {
			o := &list[i]
			if o.backups > 0 != (m == backups) || o.ratio() < 1 || len(o.etas) == 0 {
				t.Errorf("with %s, simulation %d: %d backups, %.3f times the ideal, %d ETAs", measures[m], i+1, o.backups, o.ratio(), len(o.etas))
			}
		}
	}
	without, _ := middle(all[nothing], (*outcome).ratio)
	_, with := middle(all[backups], (*outcome).ratio)
	_, inAll := middle(all[backups], (*outcome).inAll)
	_, extra := middle(all[backups], (*outcome).side)
	if with > atMost || extra > atMostTwo || inAll > 1+atMostTwo || with > without {
		t.Errorf("%.3f times the ideal schedule with %.1f %% of the work done twice and %.3f times the work in all, %.3f without backups", with, extra*100, inAll, without)
	}
	for d := xml.NewDecoder(bytes.NewReader(draw(all))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot: %v", err)
		}
	}
}

// TestSimulationIsExact: what one slot does one after another takes as long as its attempts together.
func TestSimulationIsExact(t *testing.T) {
	o := simulate(setup{nodes: 1, slots: 1, tasks: 50, measures: backups, seed: 1, load: loads[0]})
	if math.Abs(o.makespan-o.committed) > 1 || o.wasted != 0 || o.backups != 0 {
		t.Errorf("a lone node ends at %v with %v of work: %+v", o.makespan, o.committed, o.backups)
	}
}

// TestLargestFirst: where a partition takes as long as it is large, the end comes near that of an ideal schedule only if
// those go first.
func TestLargestFirst(t *testing.T) {
	l := loads[slices.IndexFunc(loads, func(l load) bool { return l.size != nil })]
	_, with := middle(simulations(l, largest, 2), (*outcome).ratio)
	without, _ := middle(simulations(l, backups, 2), (*outcome).ratio)
	if with > atMost || with > without {
		t.Errorf("%.3f times the ideal schedule at worst, and with no order %.3f", with, without)
	}
}
