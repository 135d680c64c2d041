package timeline

import (
	"context"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// EventAnywhere gives one event, of whichever room.
func (r *Rooms) EventAnywhere(ctx context.Context, v Viewer, eventID string) ([]byte, error) {
	stored, err := r.db.EventByIDAnywhere(ctx, eventID)
	if err != nil {
		return nil, err
	}
	for i := range stored { // several rooms of the first versions may have one by that id
		refs, err := r.db.Rooms(ctx, []shard.Nid{stored[i].Room})
		if err != nil {
			return nil, err
		}
		if len(refs) == 0 {
			continue
		}
		a, _, err := r.db.AccessTo(ctx, refs[0], v.User)
		if err != nil {
			return nil, err
		}
		seen, err := r.visible(ctx, &a, v, []roomdb.StoredEvent{stored[i]})
		if err != nil {
			return nil, err
		}
		if len(seen) == 0 || !stored[i].Placed {
			continue
		}
		if err := r.Aggregate(ctx, v, &a, []*readdb.Item{seen[0]}); err != nil {
			return nil, err
		}
		return seen[0].Append(nil, r.viewer(v), false), nil
	}
	return nil, errNoEvent()
}

// Membership tells the reader's own membership of a room, "" for who has none but may see it. It refuses who may see nothing of it.
func (r *Rooms) Membership(ctx context.Context, v Viewer, room id.RoomID) (string, error) {
	a, err := r.access(ctx, room, v)
	if err != nil {
		return "", err
	}
	if a.Member.Membership == roomdb.MembershipNone {
		return "", nil
	}
	return a.Member.Membership.String(), nil
}
