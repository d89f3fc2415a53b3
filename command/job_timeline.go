package command

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// timelineWidth is how many letters a lane is drawn with.
const timelineWidth = 60

func (e *env) jobTimeline() *cobra.Command {
	return &cobra.Command{
		Use: "timeline JOB", Short: "When partitions ran on which node",
		Long: "Draws a line for each node: the fuller a letter, the more partitions ran there at that time. It shows\n" +
			"the latest try of each partition that ended, by the clocks of the nodes.\n\n" + exitHelp, Args: args(1, "one run"),
		RunE: e.withRun(func(ctx context.Context, client *api.Client, run string) error {
			got, _, err := client.Timeline(ctx, run, 0, api.Read{})
			if err != nil {
				return err
			}
			if ok, err := e.shaped(got); ok {
				return err
			}
			if got.Start == nil {
				e.hint("no partition has ended yet")
				return nil
			}
			span := got.End.Sub(*got.Start)
			most := 1
			drawn := make([][]int, len(got.Lanes))
			for i, l := range got.Lanes {
				drawn[i] = busy(got, l)
				most = max(most, slices.Max(drawn[i]))
			}
			fmt.Fprintf(e.out, "%s to %s, %s; a full letter is %s at once\n", got.Start.Local().Format(time.DateTime), got.End.Local().Format(time.TimeOnly), roundDuration(span), counted(most, "partition"))
			rows := [][]string{{"NODE", "ENDED", "FAILED", "NOW", ""}}
			for i, l := range got.Lanes {
				rows = append(rows, []string{orID(l.Name, l.Node), strconv.Itoa(l.Ended), strconv.Itoa(l.Failed), strconv.Itoa(l.Now), "|" + heights(drawn[i], most) + "|"})
			}
			if err := e.table(rows); err != nil {
				return err
			}
			if got.Others > 0 {
				e.hint("%s ran on further nodes", counted(got.Others, "partition"))
			}
			return nil
		}),
	}
}

func orID(name string, id sheaf.NodeID) string {
	if name == "" {
		return fmt.Sprintf("%.8s", id)
	}
	return name
}

// busy is how many tries ran in each of timelineWidth stretches of a lane.
func busy(t api.Timeline, l api.TimelineLane) []int {
	out := make([]int, timelineWidth)
	if t.BucketMs > 0 {
		for i, n := range l.Busy {
			at := i * timelineWidth / len(l.Busy)
			out[at] = max(out[at], n)
		}
		return out
	}
	span := max(t.End.Sub(*t.Start).Milliseconds(), 1)
	for _, x := range l.Tries {
		first := int(x.StartMs * timelineWidth / (span + 1))
		last := int((x.StartMs + x.DurationMs) * timelineWidth / (span + 1))
		for i := first; i <= min(last, timelineWidth-1); i++ {
			out[i]++
		}
	}
	return out
}

// heights draws numbers of at most `most`.
func heights(n []int, most int) string {
	const levels = " ▁▂▃▄▅▆▇█"
	runes := []rune(levels)
	var b strings.Builder
	for _, x := range n {
		b.WriteRune(runes[(x*(len(runes)-1)+most-1)/most])
	}
	return b.String()
}
