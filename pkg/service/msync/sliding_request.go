package msync

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Limits of what one request of sliding sync may ask for.
const (
	maxSlidingName      = 255  // bytes of a name: of a connection, a list, a type, a key
	maxLists            = 100  // as the MSC has it
	maxRanges           = 20   // of a list
	maxSubscriptions    = 1000 // rooms
	maxWishes           = 200  // elements of one required_state
	maxListWishes       = 2000 // of those of all lists together
	maxFilterValues     = 100  // of one member of a filter
	maxSlidingTimeline  = 100  // events of a room; more are not refused but not told
	maxExtensionTargets = 1000 // lists or rooms that an extension names
)

// SlidingRequest is one request of simplified sliding sync (MSC4186). The members with JSON names are the body.
type SlidingRequest struct {
	User    id.UserID     `json:"-"`
	Device  id.DeviceID   `json:"-"`
	Pos     string        `json:"-"`
	Timeout time.Duration `json:"-"`

	Conn          string                  `json:"conn_id"`
	TxnID         string                  `json:"txn_id"`
	Lists         map[string]*SlidingList `json:"lists"`
	Subscriptions map[string]*RoomConfig  `json:"room_subscriptions"`
	Extensions    struct {
		ToDevice    ToDeviceExtension `json:"to_device"`
		E2EE        Extension         `json:"e2ee"`
		AccountData RoomExtension     `json:"account_data"`
		Receipts    RoomExtension     `json:"receipts"`
		Typing      RoomExtension     `json:"typing"`
		Threads     ThreadsExtension  `json:"io.element.msc4308.thread_subscriptions"`
	} `json:"extensions"`
}

// RoomConfig is what a client wants to be told of a room.
type RoomConfig struct {
	TimelineLimit int        `json:"timeline_limit"`
	RequiredState [][]string `json:"required_state"`
}

// SlidingList is a list of the user's rooms, and the stretches of it that the client wants to be told of.
type SlidingList struct {
	RoomConfig
	// Ranges are inclusive. Range is the newer name of the only one; with neither, the list is told as a whole.
	Ranges  [][]int        `json:"ranges"`
	Range   []int          `json:"range"`
	Filters *SlidingFilter `json:"filters"`
}

// SlidingFilter chooses the rooms of a list. What is nil chooses nothing.
type SlidingFilter struct {
	IsDM         *bool     `json:"is_dm"`
	Spaces       []string  `json:"spaces"`
	IsEncrypted  *bool     `json:"is_encrypted"`
	IsInvite     *bool     `json:"is_invite"`
	IsInvited    *bool     `json:"is_invited"` // the newer name
	RoomTypes    []*string `json:"room_types"`
	NotRoomTypes []*string `json:"not_room_types"`
	RoomNameLike string    `json:"room_name_like"`
	Tags         []string  `json:"tags"`
	NotTags      []string  `json:"not_tags"`
}

// Extension asks for something besides rooms.
type Extension struct {
	Enabled bool `json:"enabled"`
}

// ToDeviceExtension asks for messages to the device.
type ToDeviceExtension struct {
	Extension
	Since string `json:"since"`
	Limit *int   `json:"limit"`
}

// ThreadsExtension asks for the threads that the user wants to hear of (MSC4308).
type ThreadsExtension struct {
	Extension
	Limit *int `json:"limit"`
}

// RoomExtension asks for something about rooms: those of some lists and some of those subscribed to, all if it names none.
type RoomExtension struct {
	Extension
	Lists *[]string `json:"lists"`
	Rooms *[]string `json:"rooms"`
}

// Check refuses what is beyond the limits or makes no sense, and caps what may be capped. It must be called before the request is answered.
func (q *SlidingRequest) Check() error {
	bad := func(text string) error { return mxerr.New(mxerr.InvalidParam, text) }
	switch {
	case len(q.Conn) > maxSlidingName || len(q.TxnID) > maxSlidingName:
		return bad("conn_id or txn_id is too long")
	case len(q.Lists) > maxLists:
		return bad("There are too many lists")
	case len(q.Subscriptions) > maxSubscriptions:
		return bad("There are too many room_subscriptions")
	}
	wishes := 0
	for name, l := range q.Lists {
		if name == "" || len(name) > maxSlidingName {
			return bad("The name of a list is empty or too long")
		}
		if l == nil {
			return bad("A list is null")
		}
		if err := l.check(); err != nil {
			return err
		}
		if wishes += len(l.RequiredState); wishes > maxListWishes {
			return bad("The required_state of the lists is too long")
		}
	}
	for _, c := range q.Subscriptions {
		if c == nil {
			return bad("A room subscription is null")
		}
		if err := c.check(); err != nil {
			return err
		}
	}
	for _, x := range []*RoomExtension{&q.Extensions.AccountData, &q.Extensions.Receipts, &q.Extensions.Typing} {
		for _, names := range []*[]string{x.Lists, x.Rooms} {
			if names != nil && len(*names) > maxExtensionTargets {
				return bad("An extension names too many lists or rooms")
			}
		}
	}
	if l := q.Extensions.ToDevice.Limit; l != nil && *l < 0 {
		return bad("The limit of to_device is negative")
	}
	if l := q.Extensions.Threads.Limit; l != nil && *l < 0 {
		return bad("The limit of thread_subscriptions is negative")
	}
	return nil
}

func (c *RoomConfig) check() error {
	if c.TimelineLimit < 0 {
		return mxerr.New(mxerr.InvalidParam, "timeline_limit is negative")
	}
	c.TimelineLimit = min(c.TimelineLimit, maxSlidingTimeline)
	if len(c.RequiredState) > maxWishes {
		return mxerr.New(mxerr.InvalidParam, "required_state is too long")
	}
	for _, w := range c.RequiredState {
		if len(w) != 2 || len(w[0]) > maxSlidingName || len(w[1]) > maxSlidingName {
			return mxerr.New(mxerr.InvalidParam, "An element of required_state is not a type and a state key")
		}
	}
	return nil
}

func (l *SlidingList) check() error {
	if err := l.RoomConfig.check(); err != nil {
		return err
	}
	if l.Range != nil {
		l.Ranges, l.Range = append(l.Ranges, l.Range), nil
	}
	if len(l.Ranges) > maxRanges {
		return mxerr.New(mxerr.InvalidParam, "A list has too many ranges")
	}
	for _, r := range l.Ranges {
		if len(r) != 2 || r[0] < 0 || r[1] < r[0] {
			return mxerr.New(mxerr.InvalidParam, "A range is not two ascending places")
		}
	}
	f := l.Filters
	if f == nil {
		return nil
	}
	if f.IsInvite == nil {
		f.IsInvite = f.IsInvited
	}
	if n := max(len(f.Spaces), len(f.RoomTypes), len(f.NotRoomTypes), len(f.Tags), len(f.NotTags)); n > maxFilterValues {
		return mxerr.New(mxerr.InvalidParam, "A filter has too many values")
	}
	if len(f.RoomNameLike) > maxSlidingName {
		return mxerr.New(mxerr.InvalidParam, "room_name_like is too long")
	}
	return nil
}

// in tells whether a place of a list is in its ranges.
func (l *SlidingList) in(at int) bool {
	return l.Ranges == nil || slices.ContainsFunc(l.Ranges, func(r []int) bool { return r[0] <= at && at <= r[1] })
}

// wish is an element of required_state.
type wish struct{ typ, key string }

const (
	wishAny  = "*"
	wishMe   = "$ME"
	wishLazy = "$LAZY"
)

// config is what is told of a room: what all rules come to that the room matches. It does not change once it is made.
type config struct {
	limit  int
	wishes []wish // sorted, each once
}

func (w wish) compare(o wish) int {
	return cmp.Or(strings.Compare(w.typ, o.typ), strings.Compare(w.key, o.key))
}

// with gives what a config and rules come to together.
func (c config) with(rules ...*RoomConfig) config {
	out := config{limit: c.limit, wishes: slices.Clone(c.wishes)}
	for _, r := range rules {
		out.limit = max(out.limit, r.TimelineLimit)
		for _, w := range r.RequiredState {
			out.wishes = append(out.wishes, wish{w[0], w[1]})
		}
	}
	slices.SortFunc(out.wishes, wish.compare)
	out.wishes = slices.Compact(out.wishes)
	return out
}

func (c config) equal(o config) bool { return c.limit == o.limit && slices.Equal(c.wishes, o.wishes) }

// beyond tells whether a config wants state that another one does not.
func (c config) beyond(o config) bool {
	if o.lazy() && !c.lazy() && slices.ContainsFunc(c.wishes, func(w wish) bool { return w.typ == wishAny }) {
		return true
	}
	rest := o.wishes
	for _, w := range c.wishes {
		for len(rest) > 0 && rest[0].compare(w) < 0 {
			rest = rest[1:]
		}
		if len(rest) == 0 || rest[0] != w {
			return true
		}
	}
	return false
}

func (c config) lazy() bool { return slices.Contains(c.wishes, wish{typeMember, wishLazy}) }

// wants tells whether a state event is wanted for itself; members that are loaded lazily are not.
func (c config) wants(typ, key, me string) bool {
	lazy := typ == typeMember && c.lazy()
	for _, w := range c.wishes {
		if w.typ != typ && (w.typ != wishAny || lazy) {
			continue
		}
		if w.key == key || w.key == wishAny || w.key == wishMe && key == me {
			return true
		}
	}
	return false
}
