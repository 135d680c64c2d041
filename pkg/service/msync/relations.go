package msync

import (
	"context"
	"math"

	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// aggregate says of a timeline's events what their children come to, if the timeline is cut short: else the client has the
// children themselves. Of what is held all children are held too, for they came after it: no query is made.
func (v *view) aggregate(ctx context.Context, x *part, st *stretch) error {
	switch {
	case !st.limited:
		return nil
	case x.held && !x.fresh:
		st.items = readdb.Gather(v.User, v.ignored, st.items, x.events)
		return nil
	}
	a := readdb.Access{Ref: x.ref, Until: int64(v.to(x.ref.Nid.Shard())), JoinedUntil: math.MaxInt64}
	a.Member = roomdb.MemberRow{
		Room: x.ref.Nid, UserID: v.u.id, Membership: x.membership.membership, Event: x.event, Pos: x.pos, Local: true,
	}
	return v.e.Rooms.Aggregate(ctx, &a, v.User, v.ignored, st.items)
}
