package lobby

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Networks are the rooms that application services list for their networks.
type Networks interface {
	// Instance reads the name of a network's instance.
	Instance(name string) (service, network string, ok bool)
	Listed(ctx context.Context, service, network string) ([]NetworkRoom, error)
	AllListed(ctx context.Context) ([]NetworkRoom, error)
}

// NetworkRoom is a room that an application service lists.
type NetworkRoom struct {
	roomdb.RoomRef

	// Published says that the public directory has it too.
	Published bool
}

// Listing has the directory show what application services list; nil: nothing.
func (l *Lobby) Listing(n Networks) *Lobby {
	l.networks = n
	return l
}

// networkToken begins the tokens of places among the rooms of networks: how many come before.
const networkToken = "n"

// network gives a part of what is listed for an instance of a network, the largest rooms first.
func (l *Lobby) network(ctx context.Context, instance string, q DirectoryQuery) (*Directory, error) {
	var rooms []NetworkRoom
	if l.networks != nil {
		if service, network, ok := l.networks.Instance(instance); ok {
			var err error
			if rooms, err = l.networks.Listed(ctx, service, network); err != nil {
				return nil, err
			}
		}
	}
	d, _, err := l.part(ctx, rooms, &q, false)
	if err != nil {
		return nil, err
	}
	n := len(rooms)
	d.Total = &n
	return d, nil
}

// everywhere gives a part of the directory and of all networks: first the rooms that networks alone list, then the directory.
func (l *Lobby) everywhere(ctx context.Context, q DirectoryQuery) (*Directory, error) {
	if l.networks == nil || q.Since != "" && !strings.HasPrefix(q.Since, networkToken) {
		return l.Directory(ctx, q)
	}
	rooms, err := l.networks.AllListed(ctx)
	if err != nil {
		return nil, err
	}
	d, found, err := l.part(ctx, rooms, &q, true)
	if err != nil || d.Next != "" {
		return d, err
	}
	q.Since, q.Limit = "", q.Limit-len(d.Chunk)
	rest, err := l.Directory(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.Limit == 0 && len(d.Chunk) > 0 && rest.Next == "" {
		// There is no room for any of the directory: it is on the next page, if there is anything in it.
		if more, err := l.Directory(ctx, DirectoryQuery{Limit: 1, Term: q.Term, Types: q.Types}); err != nil {
			return nil, err
		} else if len(more.Chunk) > 0 {
			d.Next = networkToken + strconv.Itoa(found)
		}
		return d, nil
	}
	d.Chunk, d.Next = append(d.Chunk, rest.Chunk...), rest.Next
	if rest.Total != nil {
		n := *rest.Total + found
		d.Total = &n
	}
	return d, nil
}

// place reads a token of a place.
func place(since string) (int, error) {
	if since == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(since, networkToken))
	if err != nil || n < 0 || !strings.HasPrefix(since, networkToken) {
		return 0, mxerr.New(mxerr.InvalidParam, "The since token is not one of this server")
	}
	return n, nil
}

// part gives a part of those of some rooms that fit, from the place that is asked for, and how many fit.
func (l *Lobby) part(ctx context.Context, rooms []NetworkRoom, q *DirectoryQuery, unpublished bool) (d *Directory, found int, err error) {
	from, err := place(q.Since)
	if err != nil {
		return nil, 0, err
	}
	all, err := l.listed(ctx, rooms, q, unpublished)
	if err != nil {
		return nil, 0, err
	}
	return page(all, from, q.Limit), len(all), nil
}

// page gives a part of rooms.
func page(rooms []*known, from, limit int) *Directory {
	d := &Directory{Chunk: []Summary{}}
	from = min(from, len(rooms))
	to := min(from+limit, len(rooms))
	for _, k := range rooms[from:to] {
		d.Chunk = append(d.Chunk, (&entry{known: k}).show())
	}
	if to < len(rooms) {
		d.Next = networkToken + strconv.Itoa(to)
	}
	if from > 0 {
		d.Prev = networkToken + strconv.Itoa(max(0, from-limit))
	}
	return d
}

// listed reads rooms that fit, the largest first; with unpublished, those alone that the public directory does not have.
func (l *Lobby) listed(ctx context.Context, list []NetworkRoom, q *DirectoryQuery, unpublished bool) ([]*known, error) {
	var refs []roomdb.RoomRef
	for _, r := range list {
		if !unpublished || !r.Published {
			refs = append(refs, r.RoomRef)
		}
	}
	rooms, err := l.read(ctx, refs, id.UserID(""))
	if err != nil {
		return nil, err
	}
	var out []*known
	for _, ref := range refs {
		if k := rooms[ref.Nid]; k.here && k.fits(strings.ToLower(q.Term), q.Types) {
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b *known) int {
		return cmp.Or(cmp.Compare(b.Joined, a.Joined), cmp.Compare(a.RoomID, b.RoomID))
	})
	return out, nil
}
