package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/data/source/car"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) inputPack() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use: "pack DIR", Short: "Make a CAR file of a directory",
		Long: "Writes the files below a directory as a CAR file, which jobs read as car:///PATH, and prints its CID.\n" +
			"ipfs add --cid-version=1 --chunker=size-1048576 gives the same CID. No agent is asked.\n\n" + exitHelp,
		Args: args(1, "one directory"),
		RunE: func(c *cobra.Command, given []string) error {
			if out == "" {
				return &sheaf.Error{Class: sheaf.Invalid, Field: "-o", Msg: "no file is named", Hint: "add -o FILE.car"}
			}
			cid, err := pack(c.Context(), given[0], out)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(map[string]string{"cid": cid, "file": out}, cid); ok {
				return err
			}
			_, err = fmt.Fprintln(e.out, cid)
			return err
		},
	}
	c.Flags().StringVar(&out, "o", "", "the file to write")
	return c
}

// pack writes the file beside its place, so that none is ever half there.
func pack(ctx context.Context, dir, out string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(out), ".pack-*")
	if err != nil {
		return "", fmt.Errorf("make the CAR file: %w", err)
	}
	cid, err := car.Write(ctx, dir, f)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), out)
	}
	if err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return cid.String(), nil
}
