package state

// touched says when something of a kind changed last, so that who waits for a change of one
// namespace's runs sleeps through all other entries, and is answered with an index that only moves
// when there is news. It is not part of the state: snapshots do not hold it.
type touched struct {
	Key   string
	Index uint64
}

// Keys of touched; a namespace's runs have touchedRuns with its name behind.
const (
	touchedSince = "since" // where this server's memory of the others begins
	touchedRuns  = "runs/"
	touchedNodes = "nodes"
)

// AllNamespaces stands for runs of any namespace.
const AllNamespaces = "*"

func (t *Txn) touch(key string) {
	must(t.mem.Insert(tableTouched, &touched{key, t.meta.Index}))
}

// touchRun notes that a run came, changed or went.
func (t *Txn) touchRun(r *Run) {
	t.touch(touchedRuns + r.Job.Namespace)
	t.touch(touchedRuns + AllNamespaces)
}

// WatchRunsOf gives the index of the last change of a namespace's runs, or of [AllNamespaces], and a channel
// that is closed at the next. It may also be closed for nothing.
func (s *Snapshot) WatchRunsOf(namespace string) (index uint64, changed <-chan struct{}) {
	return s.watchTouched(touchedRuns + namespace)
}

// WatchNodeTable gives the index of the last change of any node and a channel that is closed at the next.
func (s *Snapshot) WatchNodeTable() (index uint64, changed <-chan struct{}) {
	return s.watchTouched(touchedNodes)
}

func (s *Snapshot) watchTouched(key string) (uint64, <-chan struct{}) {
	ch, row, err := s.db.Txn(false).FirstWatch(tableTouched, byID, nameKey(key))
	must(err)
	if x, ok := row.(*touched); ok {
		return x.Index, ch
	}
	return first[*touched](s, tableTouched, byID, nameKey(touchedSince)).Index, ch
}
