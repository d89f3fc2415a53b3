package httpapi

import (
	"log/slog"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sheaf-run/agent/api"
)

// Row is a row of the table of endpoints, for tests outside the package.
type Row struct {
	Method, Path string
	Needs        Capability
	Where        string // the scope's name
	Operation    *huma.Operation
}

// Table is the table of endpoints, with what the document says of each.
func Table() []Row {
	a := New(Config{Self: func() api.Self { return api.Self{} }, Health: func() api.Health { return api.Health{} }, Logger: slog.New(slog.DiscardHandler)})
	var rows []Row
	for _, e := range endpoints {
		item := a.huma.OpenAPI().Paths[e.path]
		op := map[string]*huma.Operation{"GET": item.Get, "PUT": item.Put, "POST": item.Post, "DELETE": item.Delete, "PATCH": item.Patch}[e.method]
		rows = append(rows, Row{e.method, e.path, e.needs, e.where.name, op})
	}
	return rows
}
