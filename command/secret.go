package command

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/seal"
	"github.com/sheaf-run/agent/sheaf"
)

const secretNamespaceHelp = "the secret's `NAMESPACE` (SHEAF_NAMESPACE, else default)"

func (e *env) secretPut() *cobra.Command {
	var namespace, file string
	var jobs []string
	var grant, trim bool
	c := &cobra.Command{
		Use: "put NAME", Short: "Store a secret, or give it a new value",
		Long: "Stores a secret for jobs of a namespace to use, by a secret block in their task. The value is read from -from-file, or from stdin to its end; " +
			"it is never an argument, which other users of the machine could see. It cannot be read back.\n\n" +
			"Runs that were given the old value keep it; runs that begin on a node later get the new one.\n\n" +
			"  printf %s \"$PASSWORD\" | agent secret put db-password -job 'load-*'\n  agent secret put tls-key -from-file key.pem\n  agent secret put db-password -grant -job load -job report\n\n" + exitHelp,
		Args: args(1, "the secret's name"),
		RunE: func(c *cobra.Command, given []string) error {
			if err := sheaf.CheckName("secret", given[0]); err != nil {
				return err
			}
			put := api.SecretPut{Jobs: jobs}
			switch {
			case grant && (file != "" || len(jobs) == 0):
				return usage("-grant changes which jobs may use the secret and takes no value: give -job, and no -from-file")
			case !grant:
				value, err := e.secretValue(file)
				if err != nil {
					return err
				}
				if trim {
					value = []byte(strings.TrimRight(string(value), "\r\n"))
				}
				if len(value) == 0 {
					return usage("the value is empty")
				}
				put.Value = value
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			stub, err := client.PutSecret(c.Context(), namespace, given[0], put)
			if err != nil {
				return err
			}
			if ok, err := e.shaped(stub, stub.Name); ok {
				return err
			}
			_, err = fmt.Fprintf(e.out, "secret %s of namespace %s, version %d, for %s\n", stub.Name, stub.Namespace, stub.Version, jobsText(stub.Jobs))
			return err
		},
	}
	c.Flags().StringVar(&namespace, "namespace", "", secretNamespaceHelp)
	c.Flags().StringVar(&file, "from-file", "", "read the value from `FILE`, - is stdin")
	c.Flags().StringArrayVar(&jobs, "job", nil, "a `PATTERN` of the names of jobs that may use it, as in train-*; may be repeated. Without, those stay that are there, and a new secret is for every job of its namespace")
	c.Flags().BoolVar(&grant, "grant", false, "change which jobs may use it, and not the value")
	c.Flags().BoolVar(&trim, "trim", false, "without the ends of line at the value's end")
	return c
}

// secretValue reads a value; one that is too long is not read whole.
func (e *env) secretValue(file string) ([]byte, error) {
	in := e.in
	if f, ok := e.in.(*os.File); ok && file == "" && terminal(f) {
		fmt.Fprintln(e.err, "the secret's value, ended by Ctrl-D:")
	}
	if file != "" && file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usage("read the value: %v", err)
		}
		defer f.Close()
		in = f
	}
	value, err := io.ReadAll(io.LimitReader(in, sheaf.MaxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("read the value: %w", err)
	}
	if len(value) > sheaf.MaxSecret {
		return nil, &sheaf.Error{Class: sheaf.Invalid, Field: "value", Msg: "the value is too long for a secret", Limit: fmt.Sprintf("%d KiB", sheaf.MaxSecret>>10), Hint: "keep large things where the task can fetch them, and the key to that here"}
	}
	return value, nil
}

func jobsText(patterns []string) string {
	if len(patterns) == 1 && patterns[0] == "*" {
		return "every job"
	}
	return strings.Join(patterns, ", ")
}

func (e *env) secretList() *cobra.Command {
	var namespace string
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List secrets, without their values",
		Long: "Lists the secrets of a namespace, or with -namespace '*' of all that the token may list.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			list, err := pages(e, p, nil, func(r api.Read) ([]sheaf.SecretStub, api.Meta, error) {
				return client.Secrets(c.Context(), namespace, r)
			})
			if err != nil {
				return err
			}
			rows := [][]string{{"NAMESPACE", "NAME", "VERSION", "UPDATED", "JOBS"}}
			var names []string
			for _, s := range list {
				names = append(names, s.Name)
				rows = append(rows, []string{s.Namespace, s.Name, fmt.Sprint(s.Version), s.Updated.Local().Format("2006-01-02 15:04:05"), jobsText(s.Jobs)})
			}
			if ok, err := e.shaped(list, names...); ok {
				return err
			}
			return e.table(rows)
		},
	}
	c.Flags().StringVar(&namespace, "namespace", "", secretNamespaceHelp)
	p.bind(c)
	return c
}

func (e *env) secretDelete() *cobra.Command {
	var namespace string
	c := &cobra.Command{
		Use: "delete NAME", Short: "Forget a secret",
		Long: "Forgets a secret. Runs keep it where they were given it already; elsewhere they fail.\n\n" + exitHelp, Args: args(1, "the secret's name"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.DeleteSecret(c.Context(), namespace, given[0])
		},
	}
	c.Flags().StringVar(&namespace, "namespace", "", secretNamespaceHelp)
	return c
}

func (e *env) secretKeygen() *cobra.Command {
	return &cobra.Command{
		Use: "keygen", Short: "Make a key for servers to seal secrets with",
		Long: "Prints a new key, a line of the file that server { secrets_key_file = \"…\" } names. All servers of a region need the same file, of mode 0600.\n\n" +
			"  (umask 077; agent secret keygen > /etc/sheaf.d/secrets.key)\n\n" +
			"To replace a key: add the new one as the file's last line on every server, then make it the first line on every server, run `agent secret reseal`, and take the old one out. " +
			"The file is read anew for each use; nothing needs a restart. Old snapshots need the old key.\n\n" + exitHelp,
		Args: args(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(e.out, seal.NewKey())
			return err
		},
	}
}

func (e *env) secretReseal() *cobra.Command {
	return &cobra.Command{
		Use: "reseal", Short: "Seal all secrets with the newest key",
		Long: "Has the leader seal all secrets with the first key of its file that are sealed with another one.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			got, err := client.ResealSecrets(c.Context())
			if err != nil {
				return err
			}
			if ok, err := e.shaped(got); ok {
				return err
			}
			_, err = fmt.Fprintf(e.out, "%s sealed with the newest key\n", counted(got.Resealed, "secret"))
			return err
		},
	}
}
