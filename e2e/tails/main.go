// Tails simulates runs whose partitions take very unequally long, with and without what the
// leader does about it: the agent's own scheduler and its decisions on stragglers, over simulated nodes. It prints
// how near the end of such runs comes to that of an ideal schedule and what that costs, how often
// the ETA was right, and plots both. Seeds make it the same every time.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"text/tabwriter"
)

// The target: 100 nodes, 10,000 partitions, slowness drawn anew for each attempt and node.
const (
	nodes     = 100
	tasks     = 10_000
	shape     = 1.5
	atMost    = 1.15 // times the ideal schedule
	atMostTwo = 0.05 // of the work may be done twice
)

// load is how long partitions take.
type load struct {
	name string
	took func(r *rand.Rand, node int) float64 // ms
	size func(r *rand.Rand) float64           // of a partition, by which the time is multiplied; nil is 1
}

var loads = []load{
	{"pareto", func(r *rand.Rand, _ int) float64 { return 1000 * math.Pow(1-r.Float64(), -1/shape) }, nil},
	{"uniform", func(r *rand.Rand, _ int) float64 { return 1000 * (0.5 + r.Float64()) }, nil},
	{"exponential", func(r *rand.Rand, _ int) float64 { return 1000 * r.ExpFloat64() }, nil},
	{"slow nodes", func(r *rand.Rand, node int) float64 {
		slow := 1.0
		if node%20 == 0 {
			slow = 8
		}
		return 1000 * slow * (0.8 + 0.4*r.Float64())
	}, nil},
	{"by size", func(r *rand.Rand, _ int) float64 { return 1000 * (0.8 + 0.4*r.Float64()) }, func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64()) }},
}

// measures names what is done about tails.
var measures = []string{nothing: "nothing", takeBack: "taking back", backups: "and backups", largest: "and the largest first"}

func main() {
	seeds := flag.Int("seeds", 20, "simulations of each kind")
	plot := flag.String("plot", "", "file for a plot of the target's load, as SVG")
	flag.Parse()
	if err := run(os.Stdout, *seeds, *plot); err != nil {
		fmt.Fprintln(os.Stderr, "tails:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, seeds int, plot string) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LOAD\tMEASURES\tTIMES THE IDEAL\tWORST\tIN VAIN\tWORST\tSIDE BY SIDE\tWORST\tIN ALL\tWORST\tBACKUPS\tFIRST\tGIVEN UP\tTAKEN BACK\tETA RIGHT AT 25 %\t50 %\t75 %\t90 %\tITS RANGE")
	for _, l := range loads {
		var all [][]outcome
		for m := range measures {
			if m == largest && l.size == nil {
				continue
			}
			all = append(all, simulations(l, m, seeds))
			fmt.Fprintf(t, "%s\t%s\t%s\n", l.name, measures[m], row(all[m]))
		}
		if plot != "" && l.name == "pareto" {
			if err := os.WriteFile(plot, draw(all), 0o644); err != nil {
				return fmt.Errorf("write the plot: %w", err)
			}
		}
	}
	return t.Flush()
}

func simulations(l load, measures, seeds int) (list []outcome) {
	for s := range seeds {
		list = append(list, simulate(setup{nodes: nodes, slots: 1, tasks: tasks, measures: measures, seed: uint64(s + 1), load: l}))
	}
	return list
}

// ideal is the end of a schedule without gaps that does no work but what counts, in ms.
func (o *outcome) ideal() float64 { return o.committed / nodes }

func (o *outcome) ratio() float64  { return o.makespan / o.ideal() }
func (o *outcome) inVain() float64 { return o.wasted / o.committed }
func (o *outcome) side() float64   { return o.paired / (o.committed + o.wasted) }

// inAll is the work of all attempts, beside that of the first ones had they been left to end.
func (o *outcome) inAll() float64 { return (o.committed + o.wasted) / o.first }

// right reports whether the end came within the range that was foreseen.
func (o *outcome) right(e eta) bool {
	left := o.makespan - e.at
	return left >= e.low-500 && left <= e.high+500 // it is said in seconds
}

func row(list []outcome) string {
	n := float64(len(list))
	var made, won, given, taken, factor float64
	counts := map[float64]float64{}
	for i := range list {
		o := &list[i]
		made, won, given, taken = made+float64(o.backups)/n, won+float64(o.won)/n, given+float64(o.givenUp)/n, taken+float64(o.taken)/n
		for _, e := range o.etas {
			if o.right(e) {
				counts[e.share]++
			}
			factor += math.Log(max(e.high, 1000)/max(e.low, 1000)) / n / float64(len(o.etas))
		}
	}
	ratio, worst := middle(list, (*outcome).ratio)
	vain, most := middle(list, (*outcome).inVain)
	side, sideMost := middle(list, (*outcome).side)
	all, allMost := middle(list, (*outcome).inAll)
	s := fmt.Sprintf("%.3f\t%.3f\t%.1f %%\t%.1f %%\t%.2f %%\t%.2f %%\t%.3f\t%.3f\t%.0f\t%.0f\t%.0f\t%.0f", ratio, worst, vain*100, most*100, side*100, sideMost*100, all, allMost, made, won, given, taken)
	for _, share := range etaAt {
		s += fmt.Sprintf("\t%.0f %%", counts[share]/n*100)
	}
	return s + fmt.Sprintf("\tx %.2f", math.Exp(factor))
}

// middle is the median of a figure, and the greatest.
func middle(list []outcome, of func(*outcome) float64) (median, most float64) {
	var all []float64
	for i := range list {
		all = append(all, of(&list[i]))
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1]
}
