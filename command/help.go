package command

import (
	"strings"

	"github.com/spf13/cobra"
)

func init() { cobra.AddTemplateFunc("oneDash", oneDash) }

// oneDash writes flags as this program's help does, with one dash.
func oneDash(usages string) string {
	lines := strings.Split(usages, "\n")
	for i, line := range lines {
		before, after, ok := strings.Cut(line, "--")
		if ok && strings.TrimSpace(strings.TrimSuffix(before, "-h, ")) == "" {
			lines[i] = strings.Replace(before, "    ", "", 1) + "-" + after
		}
	}
	return strings.Join(lines, "\n")
}

// oneDashUsage is cobra's own text of how a command is used, with one dash.
func oneDashUsage(usage string) string {
	return strings.NewReplacer(
		".LocalFlags.FlagUsages", "oneDash .LocalFlags.FlagUsages", ".InheritedFlags.FlagUsages", "oneDash .InheritedFlags.FlagUsages", "--help", "-help",
	).Replace(usage)
}

func (e *env) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "What a command does", Long: "Shows what a command does and takes.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) error {
			found, rest, err := c.Root().Find(given)
			if err != nil || len(rest) > 0 {
				return usage("there is no command %q: see `%s -help`", strings.Join(given, " "), c.Root().Name())
			}
			return found.Help()
		},
	}
}

func (e *env) completionCommand() *cobra.Command {
	shells := map[string]func(root *cobra.Command) error{
		"bash": func(root *cobra.Command) error { return root.GenBashCompletionV2(e.out, true) },
		"zsh":  func(root *cobra.Command) error { return root.GenZshCompletion(e.out) },
		"fish": func(root *cobra.Command) error { return root.GenFishCompletion(e.out, true) },
	}
	return &cobra.Command{
		Use: "completion bash|zsh|fish", Short: "A script that completes commands in a shell",
		Long: "Writes a script that completes commands and flags in a shell.\n\n" + exitHelp, Example: "  source <(agent completion bash)",
		ValidArgs: []string{"bash", "fish", "zsh"}, Args: args(1, "one shell: bash, zsh or fish"),
		RunE: func(c *cobra.Command, given []string) error {
			write, ok := shells[given[0]]
			if !ok {
				return usage("there is no completion for %q: use bash, zsh or fish", given[0])
			}
			return write(c.Root())
		},
	}
}
