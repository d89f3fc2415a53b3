package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
)

// aclCommand is the group of commands about who may do what.
func (e *env) aclCommand() *cobra.Command {
	return grouped("acl", "Who may do what", e.aclBootstrap(),
		grouped("policy", "What tokens may do", e.policyApply(), e.policyList(), e.policyShow(), e.policyDelete()),
		grouped("token", "Tokens", e.tokenCreate(), e.tokenList(), e.tokenShow(), e.tokenDelete(), e.tokenSelf()))
}

// readSmall reads a file, or stdin for "-"; more than limit bytes are refused.
func (e *env) readSmall(file string, limit int) ([]byte, error) {
	in := e.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usage("read %s: %v", file, err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	if len(b) > limit {
		return nil, usage("%s has more than %d bytes", file, limit)
	}
	return b, nil
}

func (e *env) aclBootstrap() *cobra.Command {
	return &cobra.Command{
		Use: "bootstrap [FILE]", Short: "Make the first management token, once", Args: atMostOne("a file with the secret"),
		Long: "Makes the cluster's first token, which may do everything, and prints its secret: keep it. With FILE (- is stdin) the secret is what stands there, " +
			"36 to 128 letters.\n\nThis works once. If the token is lost, doing it again says which number to write into the file server/acl-bootstrap-reset " +
			"in the leader's data directory; then it works once more.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) error {
			secret := ""
			if len(given) == 1 {
				b, err := e.readSmall(given[0], 1024)
				if err != nil {
					return err
				}
				if secret = strings.TrimSpace(string(b)); secret == "" {
					return usage("%s is empty", given[0])
				}
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			made, err := client.BootstrapACL(c.Context(), secret)
			if err != nil {
				return err
			}
			return e.newToken(made)
		},
	}
}

// deletes is a command that deletes one thing by its name.
func (e *env) deletes(use, short, long, what string, do func(*cobra.Command, *api.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long + "\n\n" + exitHelp, Args: args(1, what),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return do(c, client, given[0])
		},
	}
}

// tokenFile is where a person's token lies, for commands that are given none.
func tokenFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "sheaf", "token")
}

// maxTokenFile bounds what is read of it.
const maxTokenFile = 1024

// ownToken is the token that lies in the person's configuration folder; "" without one. A file that others may
// read is refused: whoever has read it has the token.
func ownToken() (string, error) {
	path := tokenFile()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil // most people have none
	}
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", usage("others may read %s (mode %o): make another token, and `chmod 600` the file", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return strings.TrimSpace(string(b)), nil
}
