package sheaf

import "strings"

// resultScheme begins the URL of an output of a run's result.
const resultScheme = "job://"

// CutResult takes job://NAME/OUTPUT apart: of is the name of a job, or the ID of a run as
// which it was pinned. It is false for every other source.
func CutResult(source string) (of, output string, ok bool) {
	rest, ok := strings.CutPrefix(source, resultScheme)
	if !ok {
		return "", "", false
	}
	of, output, ok = strings.Cut(rest, "/")
	output = strings.TrimSuffix(output, "/")
	return of, output, ok && of != "" && output != "" && !strings.Contains(output, "/")
}

// ResultURL is the source of an output of a job's, or of a run's, result.
func ResultURL(of, output string) string { return resultScheme + of + "/" + output }
