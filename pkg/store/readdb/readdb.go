// Package readdb reads rooms as a reader sees them: events ready to be shown, with what belongs into unsigned, and whether
// the reader may see them.
//
// It joins what the pure rules of matrix/visibility and matrix/event need from the rows of a room and applies them; a page of
// events takes a constant number of queries. It is
// imported by the services that show rooms and by the composition root. A [Reader] is safe for concurrent use if the database
// it was given is.
package readdb

import (
	"context"
	"fmt"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// Reader reads rooms.
type Reader struct {
	*roomdb.Reader
	Shards shard.Map
}

// NewReader makes a Reader.
func NewReader(db *roomdb.Reader, m shard.Map) *Reader { return &Reader{Reader: db, Shards: m} }

// RoomByID finds a room by its id.
func (r *Reader) RoomByID(ctx context.Context, room id.RoomID) (roomdb.RoomRef, bool, error) {
	return r.Room(ctx, r.Shards.Of(string(room)), string(room))
}

// Item is an event as it is shown: redacted if it was redacted, with what unsigned tells of it.
type Item struct {
	Nid, Room               shard.Nid
	Ord                     int64
	Event                   *event.Event
	StateBefore, StateAfter shard.Nid
	// Replaced is the state event of the same key before it; without an id there was none.
	Replaced Replaced
	// NoEffect: it is a state event that the room's state did not have when it came. It is told of items from the log alone.
	NoEffect bool
	// Because is the redaction that it was redacted by, nil if it was not.
	Because *event.Event
	// Device and Txn are of the local sender.
	Device, Txn string
	// Membership is the reader's at the event, once [Reader.Visible] has found it out.
	Membership string
	// Gap says that events before it were missing when it took its place.
	Gap bool
	// Relations is what the event's children come to, nil if that was not asked for or is nothing.
	Relations *Relations
}

// Replaced is what unsigned tells of a state event that was replaced.
type Replaced struct {
	Event   id.EventID
	Sender  id.UserID
	Content []byte
}

// Viewer is who is shown an event, and when.
type Viewer struct {
	User   id.UserID
	Device id.DeviceID
	Now    time.Time
}

// Append appends the event in the client format. fixed room ids are left out where the response names the room, as in sync.
func (it *Item) Append(dst []byte, v Viewer, omitRoom bool) []byte {
	return it.Event.AppendClient(dst, event.ClientFormat{Unsigned: it.appendUnsigned(nil, v, omitRoom), OmitRoomID: omitRoom})
}

// AppendUnsigned appends what unsigned tells the viewer.
func (it *Item) AppendUnsigned(dst []byte, v Viewer) []byte { return it.appendUnsigned(dst, v, false) }

func (it *Item) appendUnsigned(dst []byte, v Viewer, omitRoom bool) []byte {
	dst = append(dst, `{"age":`...)
	dst = canonjson.AppendInt(dst, max(0, v.Now.UnixMilli()-it.Event.OriginServerTS()))
	if it.Membership != "" {
		dst = append(dst, `,"membership":`...)
		dst = canonjson.AppendString(dst, it.Membership)
	}
	if it.Replaced.Event != "" {
		dst = append(dst, `,"prev_content":`...)
		dst = append(dst, it.Replaced.Content...)
		dst = append(dst, `,"prev_sender":`...)
		dst = canonjson.AppendString(dst, string(it.Replaced.Sender))
		dst = append(dst, `,"replaces_state":`...)
		dst = canonjson.AppendString(dst, string(it.Replaced.Event))
	}
	if it.Because != nil {
		dst = append(dst, `,"redacted_because":`...)
		dst = it.Because.AppendClient(dst, event.ClientFormat{})
		dst = append(dst, `,"redacted_by":`...)
		dst = canonjson.AppendString(dst, string(it.Because.EventID()))
	}
	if it.Txn != "" && it.Event.Sender() == v.User && it.Device == string(v.Device) {
		dst = append(dst, `,"transaction_id":`...)
		dst = canonjson.AppendString(dst, it.Txn)
	}
	if it.Relations != nil {
		dst = it.Relations.append(append(dst, `,"m.relations":`...), v, omitRoom)
	}
	return append(dst, '}')
}

// Items makes stored events of one room ready to be shown, in their order. It takes at most one query.
func (r *Reader) Items(ctx context.Context, version string, stored []roomdb.StoredEvent) ([]*Item, error) {
	rules, ok := roomver.Get(roomver.Version(version))
	if !ok {
		return nil, fmt.Errorf("room of unknown version %q", version)
	}
	var others []shard.Nid
	for i := range stored {
		if n := stored[i].Replaces; n != 0 {
			others = append(others, n)
		}
		if n := stored[i].RedactedBy; n != 0 {
			others = append(others, n)
		}
	}
	known := make(map[shard.Nid]*event.Event)
	if len(others) > 0 {
		rows, err := r.EventsByNid(ctx, others)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			e, err := Parse(rules, &rows[i])
			if err != nil {
				return nil, err
			}
			known[rows[i].Nid] = e
		}
	}
	items := make([]*Item, len(stored))
	for i := range stored {
		s := &stored[i]
		e, err := Parse(rules, s)
		if err != nil {
			return nil, err
		}
		items[i] = &Item{
			Nid: s.Nid, Room: s.Room, Ord: s.Ord, Event: e, StateBefore: s.StateBefore, StateAfter: s.StateAfter,
			Because: known[s.RedactedBy], Device: s.SenderDevice, Txn: s.TxnID, Gap: s.Flags.Has(roomdb.FlagGap),
		}
		if old := known[s.Replaces]; old != nil {
			items[i].Replaced = Replaced{Event: old.EventID(), Sender: old.Sender(), Content: old.Content()}
		}
	}
	return items, nil
}

// Parse reads a stored event, as redacted if it was.
func Parse(rules *roomver.Rules, s *roomdb.StoredEvent) (*event.Event, error) {
	e, err := event.ParseTrusted(rules, s.JSON, id.EventID(s.EventID))
	if err != nil {
		return nil, fmt.Errorf("stored event %s: %w", s.EventID, err)
	}
	if s.RedactedBy != 0 {
		e = e.Redact()
	}
	return e, nil
}
