package inbound

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"

	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/feddb"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits of a transaction.
const (
	maxPDUs  = 50
	maxEDUs  = 100
	maxTxnID = 255
)

// Rooms knows the rooms that this server is in.
type Rooms interface {
	// Admits finds a room that this server is in and tells whether it admits a server; what it refuses is a *mxerr.Error.
	Admits(ctx context.Context, room id.RoomID, origin id.ServerName) (*roomver.Rules, error)
}

// EDUs takes what a transaction holds beside events.
type EDUs interface {
	// Keep tells whether an EDU must not be lost: it is staged then, and given to Durable later.
	Keep(typ string) bool
	// Pass takes what may be lost. It does not block.
	Pass(origin id.ServerName, typ string, content []byte)
	// Durable takes what was staged. If it fails it is called again with the same.
	Durable(ctx context.Context, origin id.ServerName, typ string, content []byte) error
}

// StagerOptions are what a Stager needs. Wake is called with the shards of rooms for which something was staged, and those of origins; it
// must not block. Metrics and Log may be nil.
type StagerOptions struct {
	Server id.ServerName
	Shards shard.Map
	DB     *feddb.DB
	Rooms  Rooms
	// Invitations are of users of this server.
	Invitations Invitations
	Keys        KeySource
	EDUs        EDUs
	Wake        func(shards []shard.ID)
	Metrics     *telemetry.Metrics
	Log         *slog.Logger
}

// Stager takes transactions.
type Stager struct {
	o     StagerOptions
	taken *prometheus.CounterVec
}

// NewStager makes a Stager.
func NewStager(o StagerOptions) *Stager {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Stager{o: o, taken: o.Metrics.CounterVec("federation_inbound_pdus_total", "Events that other servers sent, by what was done at once.", "fate")}
}

// transaction is the body of /send.
type transaction struct {
	PDUs []json.RawMessage `json:"pdus"`
	EDUs []struct {
		Type    string          `json:"edu_type"`
		Content json.RawMessage `json:"content"`
	} `json:"edus"`
}

type pduResult struct {
	Error string `json:"error,omitempty"`
}

// Take stages a transaction. The answer is the body to send back; it says of each event that could be named what is wrong with it, and
// nothing of those that will be looked at later.
func (s *Stager) Take(ctx context.Context, origin id.ServerName, txn string, body []byte) ([]byte, error) {
	if len(txn) > maxTxnID {
		return nil, mxerr.New(mxerr.InvalidParam, "The transaction id is too long")
	}
	var t transaction
	if err := json.Unmarshal(body, &t); err != nil || !canonjson.IsObject(bytes.TrimSpace(body)) {
		return nil, mxerr.New(mxerr.BadJSON, "The transaction is malformed").WithCause(err)
	}
	if len(t.PDUs) > maxPDUs || len(t.EDUs) > maxEDUs {
		return nil, mxerr.Newf(mxerr.InvalidParam, "A transaction holds at most %d PDUs and %d EDUs", maxPDUs, maxEDUs)
	}
	home := s.o.Shards.Of(string(origin))
	if taken, err := s.o.DB.TxnTaken(ctx, home, string(origin), txn); err != nil || taken {
		return []byte(`{"pdus":{}}`), err
	}
	results := map[id.EventID]pduResult{}
	pdus := s.check(ctx, origin, t.PDUs, results)
	var edus []feddb.StagedEDU
	for _, e := range t.EDUs {
		if e.Type != "" && s.o.EDUs.Keep(e.Type) && len(e.Content) > 0 {
			edus = append(edus, feddb.StagedEDU{Type: e.Type, Content: e.Content})
		}
	}
	fresh, err := s.o.DB.Stage(ctx, home, string(origin), txn, pdus, edus)
	if err != nil {
		return nil, err
	}
	if fresh {
		s.wake(home, pdus, len(edus) > 0)
		for _, e := range t.EDUs {
			if e.Type != "" && !s.o.EDUs.Keep(e.Type) && len(e.Content) > 0 {
				s.o.EDUs.Pass(origin, e.Type, e.Content)
			}
		}
	}
	answer, err := json.Marshal(map[string]any{"pdus": results})
	if err != nil {
		return nil, wrap("encode answer", err)
	}
	return answer, nil
}

func (s *Stager) wake(home shard.ID, pdus []feddb.StagedPDU, edus bool) {
	var shards []shard.ID
	if edus {
		shards = append(shards, home)
	}
	for i := range pdus {
		shards = append(shards, pdus[i].Shard)
	}
	if len(shards) > 0 && s.o.Wake != nil {
		s.o.Wake(shards)
	}
}

// check parses and verifies events. What is wrong is noted where the event can be named, and left out.
func (s *Stager) check(ctx context.Context, origin id.ServerName, raw []json.RawMessage, results map[id.EventID]pduResult) []feddb.StagedPDU {
	type room struct {
		rules *roomver.Rules
		err   error
	}
	rooms := map[string]room{}
	events := make([]*event.Event, 0, len(raw))
	for _, pdu := range raw {
		canonical, err := canonjson.Canonical(pdu, canonjson.Options{Mode: canonjson.Lax})
		if err != nil {
			s.taken.WithLabelValues("malformed").Inc()
			continue
		}
		name, _ := canonjson.GetString(canonical, "room_id")
		r, ok := rooms[name]
		if !ok {
			if roomID, perr := id.ParseRoomID(name); perr != nil {
				r.err = mxerr.New(mxerr.InvalidParam, "The room id is malformed")
			} else {
				r.rules, r.err = s.o.Rooms.Admits(ctx, roomID, origin)
			}
			rooms[name] = r
		}
		if mxerr.Is(r.err, mxerr.NotFound) {
			if e := s.rescission(ctx, origin, id.RoomID(name), canonical); e != nil {
				events = append(events, e)
				continue
			}
		}
		if r.err != nil {
			s.taken.WithLabelValues("refused").Inc()
			if eventID, ok := canonjson.GetString(canonical, "event_id"); ok { // room versions 1 and 2
				results[id.EventID(eventID)] = pduResult{mxerr.From(r.err).Message}
			} else if e, err := event.Parse(roomver.MustGet(roomver.V11), pdu); err == nil { // a hash that is right for most versions
				results[e.EventID()] = pduResult{mxerr.From(r.err).Message}
			}
			continue
		}
		e, err := event.Parse(r.rules, pdu)
		if err != nil {
			s.taken.WithLabelValues("malformed").Inc()
			s.o.Log.Debug("an event is malformed", "origin", string(origin), "error", err)
			continue
		}
		events = append(events, e)
	}
	var staged []feddb.StagedPDU
	for i, err := range Verify(ctx, s.o.Keys, events) {
		e := events[i]
		if err != nil {
			s.taken.WithLabelValues("unsigned").Inc()
			results[e.EventID()] = pduResult{"The event's signatures do not verify: " + err.Error()}
			continue
		}
		s.taken.WithLabelValues("staged").Inc()
		results[e.EventID()] = pduResult{}
		staged = append(staged, feddb.StagedPDU{
			Shard: s.o.Shards.Of(string(e.RoomID())), RoomID: string(e.RoomID()), EventID: string(e.EventID()), JSON: e.JSON(),
		})
	}
	return staged
}
