package lobby

import (
	"context"
	"slices"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/token"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// DirectoryQuery asks for a part of the public directory.
type DirectoryQuery struct {
	Limit int
	Since string // a token; empty: from the largest room on
	// Term is looked for in names, topics and aliases, whatever the case.
	Term string
	// Types are the room types that are wanted, "" for rooms without one; nil for all.
	Types []string
}

// Directory is a part of the public directory.
type Directory struct {
	Chunk []Summary `json:"chunk"`
	Next  string    `json:"next_batch,omitempty"`
	Prev  string    `json:"prev_batch,omitempty"`
	// Total is told only of the whole directory: how many rooms a search would find is not known.
	Total *int `json:"total_room_count_estimate,omitempty"`
}

// scan is how many rooms a search looks at together.
const scan = 250

// Directory gives a part of the public directory, the largest rooms first.
func (l *Lobby) Directory(ctx context.Context, q DirectoryQuery) (*Directory, error) {
	at, up := roomdb.DirectoryTop(), false
	if q.Since != "" {
		t, err := token.DecodeDirectory(q.Since)
		if err != nil {
			return nil, mxerr.New(mxerr.InvalidParam, "The since token is not one of this server").WithCause(err)
		}
		at, up = roomdb.Listed{RoomRef: roomdb.RoomRef{Nid: shard.Nid(t.Room)}, Joined: t.Joined}, t.Up
	}
	found, more, err := l.search(ctx, at, up, &q)
	if err != nil {
		return nil, err
	}
	if up {
		slices.Reverse(found)
	}
	d := &Directory{Chunk: make([]Summary, len(found))}
	for i := range found {
		d.Chunk[i] = found[i].show()
	}
	if n := len(found); n > 0 {
		first, last := found[0].place, found[n-1].place
		if more && !up || up {
			d.Next = token.Directory{Joined: last.Joined, Room: int64(last.Nid)}.Encode()
		}
		if more && up || !up && q.Since != "" {
			d.Prev = token.Directory{Up: true, Joined: first.Joined, Room: int64(first.Nid)}.Encode()
		}
	}
	if q.Term == "" && q.Types == nil {
		n, err := l.db.CountPublished(ctx)
		if err != nil {
			return nil, err
		}
		d.Total = &n
	}
	return d, nil
}

// entry is a room of the directory at its place.
type entry struct {
	*known

	place roomdb.Listed
}

// show leaves out what the directory does not tell.
func (e *entry) show() Summary {
	s := e.Summary
	s.AllowedRooms, s.Encryption, s.Version, s.Membership = nil, "", "", ""
	return s
}

// search reads the directory from a place on until there are enough rooms that fit. more says that there is another one.
func (l *Lobby) search(ctx context.Context, at roomdb.Listed, up bool, q *DirectoryQuery) (found []entry, more bool, err error) {
	page := q.Limit + 1
	if q.Term != "" || q.Types != nil {
		page = max(page, scan)
	}
	term := strings.ToLower(q.Term)
	for {
		read := l.db.PublishedBelow
		if up {
			read = l.db.PublishedAbove
		}
		listed, err := read(ctx, at, page)
		if err != nil {
			return nil, false, err
		}
		refs := make([]roomdb.RoomRef, len(listed))
		for i := range listed {
			refs[i] = listed[i].RoomRef
		}
		rooms, err := l.read(ctx, refs, "")
		if err != nil {
			return nil, false, err
		}
		for _, p := range listed {
			k := rooms[p.Nid]
			if !k.fits(term, q.Types) {
				continue
			}
			if len(found) == q.Limit {
				return found, true, nil
			}
			found = append(found, entry{k, p})
		}
		if len(listed) < page {
			return found, false, nil
		}
		at = listed[len(listed)-1]
	}
}

func (k *known) fits(term string, types []string) bool {
	if types != nil && !slices.Contains(types, k.RoomType) {
		return false
	}
	return term == "" || slices.ContainsFunc([]string{k.Name, k.Topic, k.CanonicalAlias}, func(s string) bool {
		return strings.Contains(strings.ToLower(s), term)
	})
}
