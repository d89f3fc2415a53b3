package jobspec

import (
	"slices"
	"strings"
)

// nearest is the one of known that name was probably meant to be, or "": at
// most a third of its letters differ.
func nearest(name string, known []string) string {
	best, bestDistance := "", len(name)/3+1
	if len(name) > 64 {
		return ""
	}
	for _, k := range known {
		if strings.EqualFold(k, name) {
			return k
		}
		if d := distance(name, k); d < bestDistance || d == bestDistance && best == "" && len(name) > 2 {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is how many letters must be put in, taken out or changed (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// didYouMean is a hint: the nearest of known, or all of them.
func didYouMean(name string, known []string) string {
	known = slices.Clone(known)
	slices.Sort(known)
	if n := nearest(name, known); n != "" {
		return "did you mean " + quoted(n) + "? Known: " + strings.Join(known, ", ")
	}
	return "known: " + strings.Join(known, ", ")
}

// quoted is s in quotes for a message, cut where it is long, its control characters escaped.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return `"` + printable(s) + `"`
}
