package inbound

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"time"

	"github.com/heddle-im/heddle/pkg/infra/lifecycle"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// The types of EDU.
const (
	EDUTyping     = "m.typing"
	EDUReceipt    = "m.receipt"
	EDUPresence   = "m.presence"
	EDUDevices    = "m.device_list_update"
	EDUToDevice   = "m.direct_to_device"
	EDUSigningKey = "m.signing_key_update"
)

// Taker takes EDUs of one type. An error that is a *mxerr.Error is a refusal; after any other it is called again, if the type is one that must
// not be lost.
type Taker func(ctx context.Context, origin id.ServerName, content []byte) error

// Sink hands EDUs to those who take them. It implements [EDUs] and is a lifecycle service: Stop ends what is under way.
type Sink struct {
	writer room.Writer
	rooms  Rooms
	takers map[string]Taker
	keep   map[string]bool
	tasks  *lifecycle.Tasks
	slots  chan struct{}
	log    *slog.Logger
}

// passAbreast bounds the EDUs that are worked on and may be lost; more are.
const passAbreast = 32

// NewSink makes a Sink that takes typing and receipts to their rooms, if these admit the server, and what else there are takers for. kept
// are those that must not be lost, others those that may; log may be nil.
func NewSink(w room.Writer, rooms Rooms, kept, others map[string]Taker, log *slog.Logger) *Sink {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Sink{
		writer: w, rooms: rooms, takers: map[string]Taker{}, keep: map[string]bool{}, tasks: lifecycle.NewTasks(context.Background()),
		slots: make(chan struct{}, passAbreast), log: log,
	}
	s.takers[EDUTyping], s.takers[EDUReceipt] = s.typing, s.receipt
	for typ, t := range others {
		s.takers[typ] = t
	}
	for typ, t := range kept {
		s.takers[typ], s.keep[typ] = t, true
	}
	return s
}

// Start implements lifecycle.Service.
func (s *Sink) Start(context.Context) error { return nil }

// Stop implements lifecycle.Service.
func (s *Sink) Stop(ctx context.Context) error { return s.tasks.StopWithin(ctx) }

// Keep implements [EDUs].
func (s *Sink) Keep(typ string) bool { return s.keep[typ] }

// Durable implements [EDUs].
func (s *Sink) Durable(ctx context.Context, origin id.ServerName, typ string, content []byte) error {
	t := s.takers[typ]
	if t == nil {
		return nil // staged by a release that knew it
	}
	return t(ctx, origin, content)
}

// passPatience bounds the work on what may be lost.
const passPatience = 5 * time.Second

// Pass implements [EDUs].
func (s *Sink) Pass(origin id.ServerName, typ string, content []byte) {
	t := s.takers[typ]
	if t == nil {
		return
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return
	}
	begun := s.tasks.Go(func(ctx context.Context) {
		defer func() { <-s.slots }()
		ctx, cancel := context.WithTimeout(ctx, passPatience)
		defer cancel()
		if err := t(ctx, origin, content); err != nil {
			s.log.Debug("an EDU was not taken", "type", typ, "origin", string(origin), "error", err)
		}
	})
	if !begun {
		<-s.slots
	}
}

func (s *Sink) typing(ctx context.Context, origin id.ServerName, content []byte) error {
	var c struct {
		Room   id.RoomID `json:"room_id"`
		User   id.UserID `json:"user_id"`
		Typing bool      `json:"typing"`
	}
	if err := json.Unmarshal(content, &c); err != nil || c.User.Server() != origin {
		return err
	}
	if _, err := s.rooms.Admits(ctx, c.Room, origin); err != nil {
		return err
	}
	_, err := s.writer.Do(ctx, nil, &room.Typing{Room: c.Room, User: c.User, Typing: c.Typing, Timeout: time.Minute})
	return err
}

// maxReceipts bounds the receipts of one EDU.
const maxReceipts = 200

func (s *Sink) receipt(ctx context.Context, origin id.ServerName, content []byte) error {
	var c map[id.RoomID]map[string]map[id.UserID]struct {
		Events []id.EventID `json:"event_ids"`
		Data   struct {
			TS     int64  `json:"ts"`
			Thread string `json:"thread_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(content, &c); err != nil {
		return err
	}
	n := 0
	var early []*room.Receipt
	for r, kinds := range c {
		if n++; n > maxReceipts {
			break
		}
		if _, err := s.rooms.Admits(ctx, r, origin); err != nil {
			s.log.Debug("receipts were not taken", "room", string(r), "origin", string(origin), "error", err)
			continue
		}
		for user, receipt := range kinds[room.ReceiptRead] {
			if user.Server() != origin {
				continue
			}
			for _, e := range receipt.Events {
				if n++; n > maxReceipts {
					return s.later(ctx, early[:min(len(early), maxEarly)])
				}
				c := &room.Receipt{
					Room: r, User: user, Kind: room.ReceiptRead, Thread: receipt.Data.Thread, Event: e, TS: receipt.Data.TS,
				}
				if err := s.mark(ctx, c); mxerr.Is(err, mxerr.NotFound) {
					early = append(early, c)
				}
			}
		}
	}
	return s.later(ctx, early[:min(len(early), maxEarly)])
}

// mark has a receipt taken. One that is refused says nothing of the others.
func (s *Sink) mark(ctx context.Context, c *room.Receipt) error {
	_, err := s.writer.Do(ctx, nil, c)
	if err != nil {
		s.log.Debug("a receipt was not taken", "room", string(c.Room), "error", err)
	}
	return err
}

const (
	// maxEarly bounds the receipts of one EDU whose events are waited for, earlyTries how often it is looked, and earlyWait the time between.
	maxEarly   = 10
	earlyTries = 8
	earlyWait  = 250 * time.Millisecond
)

// later takes receipts of events that are not there yet: they mostly came with them, and are being prepared.
func (s *Sink) later(ctx context.Context, early []*room.Receipt) error {
	for range earlyTries {
		if len(early) == 0 {
			return nil
		}
		if err := lifecycle.Sleep(ctx, earlyWait); err != nil {
			return err
		}
		early = slices.DeleteFunc(early, func(c *room.Receipt) bool { return !mxerr.Is(s.mark(ctx, c), mxerr.NotFound) })
	}
	return nil
}
