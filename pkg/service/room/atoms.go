package room

import (
	"context"
	"slices"
	"sync"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// maxAtoms bounds the atoms that are remembered of a shard.
const maxAtoms = 1 << 16

// atoms are the names that a shard's writer knows: those with a nid, stored or about to be, and those that it knows to have none.
// Only the shard's writer gives nids, so what was read stays true for the term.
type atoms struct {
	mu     sync.Mutex // guards all below; a leaf
	byName map[string]atom
	shrunk int // counts the times that names were forgotten
}

// atom is what is known of a name. A nid of 0 says that it has none.
type atom struct {
	nid    shard.Nid
	stored bool
}

func newAtoms() *atoms { return &atoms{byName: map[string]atom{}} }

// get gives a name's nid, 0 for none; known is false if the database has to be asked.
func (a *atoms) get(name string) (nid shard.Nid, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, known := a.byName[name]
	return at.nid, known
}

// intern gives a name a nid if it has none. stored is false if the atom's row has to come along with whatever uses it; known is
// false if the database has to be asked first.
func (a *atoms) intern(name string, next func() shard.Nid) (nid shard.Nid, stored, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	at, known := a.byName[name]
	if !known {
		return 0, false, false
	}
	if at.nid == 0 {
		at.nid = next()
		a.byName[name] = at
	}
	return at.nid, at.stored, true
}

// committed tells that atoms have been stored.
func (a *atoms) committed(names []string) {
	if len(names) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range names {
		if at, ok := a.byName[n]; ok {
			at.stored = true
			a.byName[n] = at
		}
	}
}

// load asks the database about those of the names that are not known.
func (a *atoms) load(ctx context.Context, db *roomdb.Reader, s shard.ID, names []string) error {
	for {
		a.mu.Lock()
		shrunk := a.shrunk
		unknown := make([]string, 0, len(names))
		for _, n := range names {
			if _, ok := a.byName[n]; !ok {
				unknown = append(unknown, n)
			}
		}
		a.mu.Unlock()
		if len(unknown) == 0 {
			return nil
		}
		stored, err := db.AtomsByName(ctx, s, unknown)
		if err != nil {
			return err
		}
		if a.learn(unknown, stored, shrunk) {
			return nil
		}
	}
}

// learn remembers what was read. If names were forgotten since the reading began, one of these may have been given a nid, stored and
// forgotten meanwhile: it has to be read again.
func (a *atoms) learn(names []string, stored map[string]shard.Nid, shrunk int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.shrunk != shrunk {
		return false
	}
	for _, n := range names {
		if _, ok := a.byName[n]; !ok { // another may have interned it meanwhile
			nid := stored[n]
			a.byName[n] = atom{nid: nid, stored: nid != 0}
		}
	}
	if len(a.byName) > maxAtoms {
		a.shrink(names)
	}
	return true
}

// shrink forgets half of what can be read again, but not what was just asked for.
func (a *atoms) shrink(keep []string) {
	a.shrunk++
	n := 0
	for name, at := range a.byName {
		if (at.stored || at.nid == 0) && !slices.Contains(keep, name) {
			delete(a.byName, name)
			if n++; n >= maxAtoms/2 {
				return
			}
		}
	}
}
