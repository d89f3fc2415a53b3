// Demo runs a real job on files that every machine with Go has, the source of
// Go's standard library, and checks the merged result against a plain recount.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func main() {
	agent := flag.String("agent", "bin/agent", "the agent's binary")
	result := flag.String("o", "demo-result", "folder for the result")
	batch := flag.Int("batch-size", 200, "files a partition")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := demo(ctx, *agent, *result, *batch); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, agent, result string, batch int) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("ask go for GOROOT: %w", err)
	}
	source, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(out)), "src"))
	if err != nil {
		return fmt.Errorf("find Go's source: %w", err)
	}
	module, err := filepath.Abs(filepath.Join(filepath.Dir(agent), "linecount.wasm"))
	if err != nil {
		return err
	}
	fmt.Println("building the task for WebAssembly …")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", module, "./e2e/demo/linecount")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	if err := show(build); err != nil {
		return err
	}
	if err := os.RemoveAll(result); err != nil {
		return fmt.Errorf("clear the last demo's result: %w", err)
	}
	args := []string{
		"job", "run", "-local", "-o", result,
		"-var", "source=" + source, "-var", "module=" + module, "-var", fmt.Sprint("batch_size=", batch), "e2e/demo/demo.hcl",
	}
	fmt.Println("$", agent, strings.Join(args, " "))
	began := time.Now()
	if err := show(exec.CommandContext(ctx, agent, args...)); err != nil {
		return err
	}
	took := time.Since(began).Round(10 * time.Millisecond)
	counts := filepath.Join(result, "outputs", "counts", "counts.tsv")
	got, err := os.ReadFile(counts)
	if err != nil {
		return fmt.Errorf("read the result: %w", err)
	}
	want, err := recount(source)
	if err != nil {
		return fmt.Errorf("recount: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("the result differs from a plain recount:\n%s", firstDifference(got, want))
	}
	lines := bytes.Count(got, []byte("\n"))
	fmt.Printf("\n%s\n  …\n%d files counted in %s; the merged table equals a plain recount.\nThe result is in %s, the table in %s\n",
		head(got, 4), lines, took, result, counts)
	return nil
}

func show(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// recount makes the table by walking the folder, without any of the product.
func recount(source string) ([]byte, error) {
	var paths []string
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".go") {
			paths = append(paths, "/src"+strings.TrimPrefix(path, source))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var b bytes.Buffer
	for _, p := range paths {
		data, err := os.ReadFile(filepath.Join(source, strings.TrimPrefix(p, "/src")))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s\t%d\t%d\t%d\n", p, bytes.Count(data, []byte("\n")), len(bytes.Fields(data)), len(data))
	}
	return b.Bytes(), nil
}

func head(b []byte, n int) string {
	lines := strings.SplitAfterN(string(b), "\n", n+1)
	return "  " + strings.TrimRight(strings.Join(lines[:min(n, len(lines))], "  "), "\n")
}

func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("line %d: result %q, recount %q", i+1, a, b)
		}
	}
	return "no line differs"
}
