package write

import (
	"context"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
)

// fullyRead is the type of the account data that is a user's read marker, and of the receipt that sets it.
const fullyRead = "m.fully_read"

// threadMain is the thread of what is in no thread.
const threadMain = "main"

func (h *Rooms) receipt(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Thread jsontext.Value `json:"thread_id"`
	}
	if err := httpx.DecodeOptional(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	kind := httpx.Var(r, "receiptType")
	switch kind {
	case room.ReceiptRead, room.ReceiptReadPrivate, fullyRead:
	default:
		return mxerr.New(mxerr.InvalidParam, "Unknown receipt type")
	}
	eventID, err := parseEvent(httpx.Var(r, "eventId"))
	if err != nil {
		return err
	}
	thread, err := parseThread(q.Thread)
	if err != nil {
		return err
	}
	if kind != fullyRead {
		err = h.setReceipt(r.Context(), c, target, kind, thread, eventID)
	} else if thread != "" {
		err = mxerr.New(mxerr.InvalidParam, "A read marker belongs to no thread")
	} else {
		err = h.setFullyRead(r.Context(), c, target, eventID)
	}
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// parseThread reads thread_id: "" if it is absent, main, or the id of a thread's root.
func parseThread(v jsontext.Value) (string, error) {
	if len(v) == 0 {
		return "", nil
	}
	var s string
	if v.Kind() != '"' || json.Unmarshal(v, &s) != nil || s == "" {
		return "", mxerr.New(mxerr.InvalidParam, "thread_id field must be a non-empty string")
	}
	if s == threadMain {
		return s, nil
	}
	if _, err := id.ParseEventID(s); err != nil {
		return "", mxerr.New(mxerr.InvalidParam, "thread_id is neither main nor an event id").WithCause(err)
	}
	return s, nil
}

func (h *Rooms) setReceipt(ctx context.Context, c *auth.Caller, in id.RoomID, kind, thread string, e id.EventID) error {
	_, err := h.do(ctx, &room.Receipt{Room: in, User: c.UserID, Kind: kind, Thread: thread, Event: e})
	return err
}

// setFullyRead sets the read marker, which is account data of the room.
func (h *Rooms) setFullyRead(ctx context.Context, c *auth.Caller, in id.RoomID, e id.EventID) error {
	joined, err := h.o.Directory.Joined(ctx, in, c.UserID)
	switch {
	case err != nil:
		return err
	case !joined:
		return mxerr.New(mxerr.Forbidden, "You are not in the room")
	}
	switch _, ok, err := h.o.Directory.Sender(ctx, in, e); {
	case err != nil:
		return err
	case !ok:
		return mxerr.New(mxerr.NotFound, "The room has no such event")
	}
	content, err := json.Marshal(eventAnswer{e})
	if err != nil {
		return err
	}
	_, err = h.o.Accounts.Do(ctx, &account.SetAccountData{
		UserID: string(c.UserID), RoomID: string(in), Type: fullyRead, Content: content,
	})
	return err
}

func (h *Rooms) readMarkers(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		FullyRead   *string `json:"m.fully_read"`
		Read        *string `json:"m.read"`
		ReadPrivate *string `json:"m.read.private"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	given := [...]struct {
		kind string
		id   *string
	}{{room.ReceiptRead, q.Read}, {room.ReceiptReadPrivate, q.ReadPrivate}, {fullyRead, q.FullyRead}}
	for _, g := range given { // nothing is set if anything is malformed
		if g.id != nil {
			if _, err := parseEvent(*g.id); err != nil {
				return err
			}
		}
	}
	for _, g := range given {
		switch {
		case g.id == nil:
		case g.kind == fullyRead:
			err = h.setFullyRead(r.Context(), c, target, id.EventID(*g.id))
		default:
			err = h.setReceipt(r.Context(), c, target, g.kind, "", id.EventID(*g.id))
		}
		if err != nil {
			return err
		}
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// maxTyping bounds what a client may ask for; the writer has a lower bound.
const maxTyping = time.Hour

func (h *Rooms) typing(w http.ResponseWriter, r *http.Request) error {
	c, err := self(r)
	if err != nil {
		return err
	}
	if c.Suspended {
		return suspended()
	}
	var q struct {
		Typing  *bool `json:"typing"`
		Timeout int64 `json:"timeout"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	switch {
	case q.Typing == nil:
		return mxerr.New(mxerr.MissingParam, "The request does not say whether the user is typing")
	case q.Timeout < 0:
		return mxerr.New(mxerr.InvalidParam, "timeout is negative")
	}
	timeout := time.Duration(min(q.Timeout, maxTyping.Milliseconds())) * time.Millisecond
	if _, err := h.do(r.Context(), &room.Typing{Room: target, User: c.UserID, Typing: *q.Typing, Timeout: timeout}); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}
