package command

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

// newToken prints a token with its secret, once.
func (e *env) newToken(t api.NewToken) error {
	if ok, err := e.shaped(t, t.Secret); ok {
		return err
	}
	if err := e.table(append(tokenRows(t.Token), []string{"secret", t.Secret})); err != nil {
		return err
	}
	e.hint("the secret is shown only now: export SHEAF_TOKEN=…, or put it into %s (mode 600)", tokenFile())
	return nil
}

func tokenRows(t sheaf.Token) [][]string {
	return [][]string{{"accessor", t.Accessor}, {"name", t.Name}, {"type", string(t.Type)}, {"policies", strings.Join(t.Policies, ", ")}, {"created", t.Created.Format(time.RFC3339)}, {"expires", expiry(t)}}
}

func expiry(t sheaf.Token) string {
	if t.Expires == nil {
		return "never"
	}
	return t.Expires.Format(time.RFC3339)
}

func (e *env) tokenCreate() *cobra.Command {
	var name string
	var policies []string
	var management bool
	var ttl time.Duration
	c := &cobra.Command{
		Use: "create", Short: "Make a token", Args: args(0, "no arguments"),
		Long: "Makes a token and prints its secret, which nobody can read again.\n\n  agent acl token create -name ci -policy team-write -ttl 720h\n\n" + exitHelp,
		RunE: func(c *cobra.Command, _ []string) error {
			if management == (len(policies) > 0) {
				return usage("give -policy, once or more, or -management")
			}
			kind := sheaf.TokenClient
			if management {
				kind = sheaf.TokenManagement
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			made, err := client.CreateToken(c.Context(), api.TokenRequest{Name: name, Type: kind, Policies: policies, TTL: sheaf.Duration(ttl)})
			if err != nil {
				return err
			}
			return e.newToken(made)
		},
	}
	c.Flags().StringVar(&name, "name", "", "what the token is for")
	c.Flags().StringArrayVar(&policies, "policy", nil, "a `POLICY` of the token; may be repeated")
	c.Flags().BoolVar(&management, "management", false, "a token that may do everything")
	c.Flags().DurationVar(&ttl, "ttl", 0, "how long it lives, as in 720h; for ever unless given")
	return c
}

func (e *env) tokenList() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List tokens", Long: "Lists the tokens by their accessors; secrets are never shown.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			all, err := pages(e, p, nil, func(r api.Read) ([]sheaf.Token, api.Meta, error) { return client.Tokens(c.Context(), r) })
			if err != nil {
				return err
			}
			rows, names := [][]string{{"ACCESSOR", "NAME", "TYPE", "POLICIES", "EXPIRES"}}, []string{}
			for _, t := range all {
				names = append(names, t.Accessor)
				rows = append(rows, []string{t.Accessor, t.Name, string(t.Type), strings.Join(t.Policies, ", "), expiry(t)})
			}
			if ok, err := e.shaped(all, names...); ok {
				return err
			}
			return e.table(rows)
		},
	}
	p.bind(c)
	return c
}

func (e *env) tokenShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ACCESSOR", Short: "One token", Long: "Shows a token, but for its secret.\n\n" + exitHelp, Args: args(1, "one accessor"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			t, err := client.Token(c.Context(), given[0])
			if err != nil {
				return err
			}
			if ok, err := e.shaped(t, t.Accessor); ok {
				return err
			}
			return e.table(tokenRows(t))
		},
	}
}

func (e *env) tokenDelete() *cobra.Command {
	return e.deletes("delete ACCESSOR", "Delete a token", "Deletes a token. What is asked with it is refused from then on, and streams that were end.", "one accessor",
		func(c *cobra.Command, client *api.Client, name string) error {
			return client.DeleteToken(c.Context(), name)
		})
}

func (e *env) tokenSelf() *cobra.Command {
	return &cobra.Command{
		Use: "self", Short: "The token in use, and what it may do", Long: "Shows who the agent takes you for, with the rules of your policies.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			self, err := client.ACLSelf(c.Context())
			if err != nil {
				return err
			}
			id := "anonymous"
			if self.Token != nil {
				id = self.Token.Accessor
			}
			if ok, err := e.shaped(self, id); ok {
				return err
			}
			rows := [][]string{{"accessor", "none: no token was shown"}}
			if self.Token != nil {
				rows = tokenRows(*self.Token)
			}
			if err := e.table(rows); err != nil {
				return err
			}
			for _, p := range self.Policies {
				fmt.Fprintf(e.out, "policy %s\n%s\n", p.Name, block(p.Rules, "  "))
			}
			return nil
		},
	}
}
