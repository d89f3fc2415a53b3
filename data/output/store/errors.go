package store

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sheaf-run/agent/sheaf"
)

// ErrBroken is returned by every write after a sync failed: what the kernel
// holds of earlier writes is unknown from then on, and only a new process that
// reads the files again can tell. The client ends on it.
var ErrBroken = errors.New("a sync of the store failed")

// Damage is a place in a file of ours that does not hold what was written.
type Damage struct {
	File   string
	Offset int64
	What   string
}

// Error names the place.
func (d *Damage) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d: %s", d.File, d.Offset, d.What)
}

// Damaged lists the damage found since the store was opened, at most the first 100.
func (s *Store) Damaged() []Damage {
	s.damaging.Lock()
	defer s.damaging.Unlock()
	return slices.Clone(s.damage)
}

// Lacks says why reading a record failed for good: it is gone or damaged. It is empty for
// any other error.
func Lacks(err error) string {
	var d *Damage
	switch {
	case errors.As(err, &d):
		return "its record is damaged: " + d.What
	case sheaf.ClassOf(err) == sheaf.NotFound && err != nil:
		return "its record is gone"
	}
	return ""
}

// found takes note of damage.
func (s *Store) found(d *Damage) {
	s.log.Error("a file of the store is damaged", "file", d.File, "offset", d.Offset, "what", d.What)
	s.damaging.Lock()
	defer s.damaging.Unlock()
	if len(s.damage) < maxDamage && !slices.Contains(s.damage, *d) {
		s.damage = append(s.damage, *d)
	}
}

// syncFailed marks an error after which nothing that was written can be relied on.
type syncFailed struct{ error }

func (e syncFailed) Unwrap() error { return e.error }

// noRoom wraps an error with its step, and gives it the class Unavailable where
// the cause is a lack of room or descriptors, which may pass.
func noRoom(step, dir string, err error) error {
	var lost syncFailed
	switch {
	case errors.As(err, &lost):
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: step + ": no room in " + dir, Err: err, Hint: "free space on the file system of " + dir}
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return &sheaf.Error{Class: sheaf.Unavailable, Msg: step, Err: err}
	}
	return fmt.Errorf("%s: %w", step, err)
}
