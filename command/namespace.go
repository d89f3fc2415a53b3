package command

import (
	"github.com/spf13/cobra"

	"github.com/sheaf-run/agent/api"
	"github.com/sheaf-run/agent/sheaf"
)

func (e *env) namespaceList() *cobra.Command {
	var p pageFlags
	c := &cobra.Command{
		Use: "list", Short: "List namespaces", Long: "Lists the namespaces that you may know of.\n\n" + exitHelp, Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			all, err := pages(e, p, nil, func(r api.Read) ([]sheaf.Namespace, api.Meta, error) { return client.Namespaces(c.Context(), r) })
			if err != nil {
				return err
			}
			rows, names := [][]string{{"NAME", "DESCRIPTION"}}, []string{}
			for _, n := range all {
				names = append(names, n.Name)
				rows = append(rows, []string{n.Name, n.Description})
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

func (e *env) namespaceApply() *cobra.Command {
	var description string
	c := &cobra.Command{
		Use: "apply NAME", Short: "Make or change a namespace", Long: "Makes a namespace, or changes its description.\n\n" + exitHelp, Args: args(1, "one name"),
		RunE: func(c *cobra.Command, given []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			return client.PutNamespace(c.Context(), given[0], api.NamespaceRequest{Description: description})
		},
	}
	c.Flags().StringVar(&description, "description", "", "a line about the namespace")
	return c
}

func (e *env) namespaceDelete() *cobra.Command {
	return e.deletes("delete NAME", "Delete a namespace", "Deletes a namespace with its secrets and the runs in it that are over. While one is not, it is refused.", "one namespace",
		func(c *cobra.Command, client *api.Client, name string) error {
			return client.DeleteNamespace(c.Context(), name)
		})
}
