package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/internal/acl"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) policyApply() *cobra.Command {
	var description string
	c := &cobra.Command{
		Use: "apply NAME FILE", Short: "Make or replace a policy", Args: args(2, "a name and a file"),
		Long: "Makes a policy of a file with rules, or replaces it; - is stdin. The name anonymous stands for who shows no token.\n\n" +
			"  namespace \"team-*\" { policy = \"write\" }\n  namespace \"team-x\" { capabilities = [\"read-jobs\"] }\n  node { policy = \"read\" }\n\n" +
			"Blocks: namespace, node, agent, operator; policies: read, write, deny.\n\n" + exitHelp,
		RunE: func(c *cobra.Command, given []string) error {
			rules, err := e.readSmall(given[1], acl.MaxRules)
			if err != nil {
				return err
			}
			if _, err := acl.Parse(given[1], rules); err != nil {
				return err
			}
			client, err := e.client()
			if err != nil {
				return err
			}
			if err := client.PutPolicy(c.Context(), given[0], api.PolicyRequest{Description: description, Rules: string(rules)}); err != nil {
				return err
			}
			e.hint("policy %s is in force", given[0])
			return nil
		},
	}
	c.Flags().StringVar(&description, "description", "", "a line about the policy")
	return c
}

func (e *env) policyList() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List policies", Long: "Lists the policies.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			all, err := pages(e, p, nil, func(r api.Read) ([]sheaf.Policy, api.Meta, error) { return client.Policies(c.Context(), r) })
			if err != nil {
				return err
			}
			rows, names := [][]string{{"NAME", "DESCRIPTION"}}, []string{}
			for _, x := range all {
				names = append(names, x.Name)
				rows = append(rows, []string{x.Name, x.Description})
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

func (e *env) policyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "One policy with its rules", Long: "Prints a policy's rules.\n\n" + exitHelp, Args: args(1, "one policy"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			p, err := client.Policy(c.Context(), given[0])
			if err != nil {
				return err
			}
			if ok, err := e.shaped(p, p.Name); ok {
				return err
			}
			_, err = fmt.Fprintln(e.out, block(p.Rules, ""))
			return err
		},
	}
}

func (e *env) policyDelete() *cobra.Command {
	return e.deletes("delete NAME", "Delete a policy", "Deletes a policy. Tokens that name it lose what it granted.", "one policy",
		func(c *cobra.Command, client *api.Client, name string) error {
			return client.DeletePolicy(c.Context(), name)
		})
}
