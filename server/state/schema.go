package state

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-memdb"

	"github.com/sheaf-run/agent/sheaf"
)

// The tables and their indexes.
const (
	tableRuns       = "runs"
	tableNodes      = "nodes"
	tableBackups    = "backups"
	tableTombstones = "tombstones"
	tableTouched    = "touched"
	tableSecrets    = "secrets"
	tablePolicies   = "policies"
	tableTokens     = "tokens"
	tableNamespaces = "namespaces"

	byID     = "id"
	byLive   = "live"   // runs that are not over, in order of creation
	byWaits  = "waits"  // runs that wait for others, in order of creation
	byJob    = "job"    // runs by namespace, name and creation
	byNumber = "number" // nodes
	bySecret = "secret" // tokens by the digest of their secret
)

// keyOf makes an index of a function from a row to its key. A false leaves the row out.
type keyOf[T any] func(T) ([]byte, bool)

// FromObject implements memdb.SingleIndexer.
func (k keyOf[T]) FromObject(row any) (bool, []byte, error) {
	b, ok := k(row.(T))
	if !ok {
		return false, nil, nil // a key beside the false would keep the old entry in the index
	}
	return true, b, nil
}

// FromArgs implements memdb.Indexer: the argument is the key itself.
func (k keyOf[T]) FromArgs(args ...any) ([]byte, error) {
	b, ok := args[0].([]byte)
	if !ok {
		return nil, fmt.Errorf("index argument is a %T", args[0])
	}
	return b, nil
}

// PrefixFromArgs implements memdb.PrefixIndexer.
func (k keyOf[T]) PrefixFromArgs(args ...any) ([]byte, error) { return k.FromArgs(args...) }

// Keys end in a zero byte where a longer key could begin with a shorter one;
// names hold none.
func nameKey[S ~string](s S) []byte { return append([]byte(s), 0) }

func jobKey(namespace, name string) []byte { return append(nameKey(namespace), nameKey(name)...) }

func backupKey(run sheaf.RunID, partition uint32) []byte {
	return binary.BigEndian.AppendUint32(nameKey(run), partition)
}

func numberKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func newDB() *memdb.MemDB {
	index := func(name string, i memdb.Indexer, optional bool) *memdb.IndexSchema {
		return &memdb.IndexSchema{Name: name, Unique: true, AllowMissing: optional, Indexer: i}
	}
	table := func(name string, indexes ...*memdb.IndexSchema) *memdb.TableSchema {
		t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{}}
		for _, i := range indexes {
			t.Indexes[i.Name] = i
		}
		return t
	}
	db, err := memdb.NewMemDB(&memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tableRuns: table(tableRuns,
			index(byID, keyOf[*Run](func(r *Run) ([]byte, bool) { return nameKey(r.ID), true }), false),
			index(byLive, keyOf[*Run](func(r *Run) ([]byte, bool) {
				return binary.BigEndian.AppendUint64(nil, r.Created), !r.Status.Terminal()
			}), true),
			index(byWaits, keyOf[*Run](func(r *Run) ([]byte, bool) {
				return binary.BigEndian.AppendUint64(nil, r.Created), len(r.Waits) > 0 && !r.Status.Terminal()
			}), true),
			index(byJob, keyOf[*Run](func(r *Run) ([]byte, bool) {
				return binary.BigEndian.AppendUint64(jobKey(r.Job.Namespace, r.Job.Name), r.Created), true
			}), false),
		),
		tableNodes: table(tableNodes,
			index(byID, keyOf[*Node](func(n *Node) ([]byte, bool) { return nameKey(n.ID), true }), false),
			index(byNumber, keyOf[*Node](func(n *Node) ([]byte, bool) { return numberKey(n.Number), true }), false),
		),
		tableBackups: table(tableBackups,
			index(byID, keyOf[*Backup](func(b *Backup) ([]byte, bool) { return backupKey(b.Run, b.Partition), true }), false),
		),
		tablePolicies: table(tablePolicies,
			index(byID, keyOf[*Policy](func(p *Policy) ([]byte, bool) { return nameKey(p.Name), true }), false),
		),
		tableTokens: table(tableTokens,
			index(byID, keyOf[*Token](func(t *Token) ([]byte, bool) { return nameKey(t.Accessor), true }), false),
			index(bySecret, keyOf[*Token](func(t *Token) ([]byte, bool) { return t.Secret[:], true }), false),
		),
		tableNamespaces: table(tableNamespaces,
			index(byID, keyOf[*Namespace](func(n *Namespace) ([]byte, bool) { return nameKey(n.Name), true }), false),
		),
		tableTouched: table(tableTouched,
			index(byID, keyOf[*touched](func(x *touched) ([]byte, bool) { return nameKey(x.Key), true }), false),
		),
		tableTombstones: table(tableTombstones,
			index(byID, keyOf[*Tombstone](func(t *Tombstone) ([]byte, bool) { return nameKey(t.Run), true }), false),
		),
		tableSecrets: table(tableSecrets,
			index(byID, keyOf[*Secret](func(x *Secret) ([]byte, bool) { return secretKey(x.Namespace, x.Name), true }), false),
		),
	}})
	if err != nil {
		panic("state: the schema contradicts itself: " + err.Error())
	}
	return db
}
