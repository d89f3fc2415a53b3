package state

// Change is what an entry did to one row of a table: a *Run, a *Node, or a row of another
// table. Before is nil for a new row, After for one that is gone.
type Change struct {
	Table  string
	Before any
	After  any
}

// Track keeps what the transaction changes, for Changes. It comes before the first change.
func (t *Txn) Track() { t.mem.TrackChanges() }

// Changes are the rows that a committed transaction changed, each once, in the order of
// their last change; nil unless tracked.
func (t *Txn) Changes() []Change {
	var all []Change
	for _, c := range t.changes {
		all = append(all, Change{Table: c.Table, Before: c.Before, After: c.After})
	}
	return all
}

// TableNames are the names of all tables, in no order.
func TableNames() []string {
	var names []string
	for name := range newDB().DBSchema().Tables {
		names = append(names, name)
	}
	return names
}
