package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// slurmAtOnce is how many tasks Slurm may have at once: it starts new ones about once a second, so that what it is allowed
// then is what it does in a second. As installed, with one a processor, it does two.
const slurmAtOnce = 100

// slurmPoll is how often Slurm is asked what is left of an array: to wait for it, its own command sleeps for ten seconds.
const slurmPoll = 200 * time.Millisecond

// slurmConfig is a cluster of this machine alone, whose daemons keep everything in dir.
func slurmConfig(dir, host string, controller, node int) string {
	return fmt.Sprintf(`ClusterName=bench
SlurmctldHost=%[2]s(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=%[1]s/munge.socket
CredType=cred/munge
StateSaveLocation=%[1]s/controller
SlurmdSpoolDir=%[1]s/node
SlurmctldPidFile=%[1]s/controller.pid
SlurmdPidFile=%[1]s/node.pid
SlurmctldPort=%[3]d
SlurmdPort=%[4]d
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,default_queue_depth=10000
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MaxArraySize=10001
MaxJobCount=20000
ReturnToService=2
NodeName=%[2]s NodeAddr=127.0.0.1 CPUs=%[5]d State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
`, dir, host, controller, node, slurmAtOnce)
}

// daemon is a program that runs until it is stopped.
type daemon struct {
	cmd    *exec.Cmd
	log    bytes.Buffer // to be read once exited is closed
	exited chan struct{}
}

func startDaemon(dir, name string, args ...string) (*daemon, error) {
	d := &daemon{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = dir, &d.log, &d.log
	d.cmd.Env = append(os.Environ(), "SLURM_CONF="+filepath.Join(dir, "slurm.conf"))
	d.cmd.WaitDelay = time.Second // what it has started may hold its output
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	return d, nil
}

func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(os.Interrupt)
	select {
	case <-d.exited:
	case <-time.After(stopPatience):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

// slurm is how many tasks of an array Slurm runs in a second, by a cluster of its own on this machine.
func (b *bench) slurm(ctx context.Context, n int) (rate float64, err error) {
	dir, err := os.MkdirTemp(b.root, "slurm-")
	if err != nil {
		return 0, fmt.Errorf("make a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	host, err := os.Hostname()
	if err != nil {
		return 0, fmt.Errorf("ask for the machine's name: %w", err)
	}
	host, _, _ = strings.Cut(host, ".")
	ports, err := freePorts(2)
	if err != nil {
		return 0, err
	}
	key := make([]byte, 1024)
	_, _ = rand.Read(key) // never fails
	err = errors.Join(
		os.Mkdir(filepath.Join(dir, "controller"), 0o700), os.Mkdir(filepath.Join(dir, "node"), 0o700),
		os.WriteFile(filepath.Join(dir, "munge.key"), key, 0o600),
		os.WriteFile(filepath.Join(dir, "slurm.conf"), []byte(slurmConfig(dir, host, ports[0], ports[1])), 0o600),
	)
	if err != nil {
		return 0, fmt.Errorf("set up Slurm: %w", err)
	}
	var daemons []*daemon
	defer func() {
		for _, d := range daemons {
			d.stop()
			if err != nil {
				err = fmt.Errorf("%w\n%s:\n%s", err, filepath.Base(d.cmd.Path), lastOf(d.log.String()))
			}
		}
	}()
	for _, command := range [][]string{
		{"munged", "--foreground", "--force", "--socket=" + dir + "/munge.socket", "--key-file=" + dir + "/munge.key", "--pid-file=" + dir + "/munge.pid", "--seed-file=" + dir + "/munge.seed", "--log-file=" + dir + "/munge.log"},
		{"slurmctld", "-D"},
		{"slurmd", "-D"},
	} {
		d, err := startDaemon(dir, command[0], command[1:]...)
		if err != nil {
			return 0, err
		}
		daemons = append([]*daemon{d}, daemons...) // the last is stopped first
	}
	ask := func(name string, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = append(os.Environ(), "SLURM_CONF="+filepath.Join(dir, "slurm.conf"))
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s: %w: %s", name, err, lastOf(said.String()))
		}
		return strings.TrimSpace(string(out)), nil
	}
	for {
		if state, err := ask("sinfo", "-h", "-o", "%T"); err == nil && state == "idle" {
			break
		} else if ctx.Err() != nil {
			return 0, fmt.Errorf("wait for Slurm's node, which is %q: %w", state, errors.Join(err, context.Cause(ctx)))
		}
		if err := rest(ctx, slurmPoll); err != nil {
			return 0, fmt.Errorf("wait for Slurm: %w", err)
		}
	}
	began := time.Now()
	if _, err := ask("sbatch", fmt.Sprintf("--array=0-%d", n-1), "--output=/dev/null", "--error=/dev/null", "--chdir=/", "--wrap=/bin/true"); err != nil {
		return 0, err
	}
	for {
		states, err := ask("squeue", "-h", "-r", "-t", "all", "-o", "%T")
		if err != nil {
			return 0, err
		}
		if strings.Count(states, "COMPLETED") == n {
			return float64(n) / time.Since(began).Seconds(), nil
		}
		if err := rest(ctx, slurmPoll); err != nil {
			return 0, fmt.Errorf("wait for Slurm's tasks, of which %d of %d are over: %w", strings.Count(states, "COMPLETED"), n, err)
		}
	}
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lastOf is the end of what a program said, for an error.
func lastOf(text string) string { return strings.TrimSpace(text[max(0, len(text)-1000):]) }
