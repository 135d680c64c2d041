package write

import (
	"context"
	"net/http"
	"strings"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// Reported knows whether there is what is reported.
type Reported struct {
	// User tells whether there is a user of this server. It is (*account.Reader).Exists.
	User func(ctx context.Context, user id.UserID) (bool, error)
	// Room tells whether this server knows a room. It is (*directory.Directory).Known.
	Room func(ctx context.Context, room id.RoomID) (bool, error)
}

// maxReason bounds the reason of a report, in bytes.
const maxReason = 4096

// reason reads the body of a report.
func reason(r *http.Request, required bool) (string, error) {
	var q struct {
		Reason *string `json:"reason"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return "", err
	}
	switch {
	case q.Reason == nil && required:
		return "", mxerr.New(mxerr.MissingParam, "The report has no reason")
	case q.Reason == nil:
		return "", nil
	case len(*q.Reason) > maxReason:
		return "", mxerr.Newf(mxerr.InvalidParam, "A reason may be %d bytes long", maxReason)
	}
	// PostgreSQL's text holds no NUL, and no report shall be lost for it.
	return strings.ReplaceAll(*q.Reason, "\x00", "\uFFFD"), nil
}

func (h *Rooms) report(w http.ResponseWriter, r *http.Request, c account.Report) error {
	c.UserID = string(auth.Must(r.Context()).UserID)
	if _, err := h.o.Accounts.Do(r.Context(), &c); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (h *Rooms) reportEvent(w http.ResponseWriter, r *http.Request) error {
	why, err := reason(r, false)
	if err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	event, err := parseEvent(httpx.Var(r, "eventId"))
	if err != nil {
		return err
	}
	// To one who is not in the room nothing tells whether there is such an event.
	joined, err := h.o.Directory.Joined(r.Context(), target, auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	var sender id.UserID
	if joined {
		if sender, joined, err = h.o.Directory.Sender(r.Context(), target, event); err != nil {
			return err
		}
	}
	if !joined {
		return mxerr.New(mxerr.NotFound, "The event was not found or you are not joined to the room.")
	}
	return h.report(w, r, account.Report{RoomID: string(target), EventID: string(event), About: string(sender), Reason: why})
}

func (h *Rooms) reportRoom(w http.ResponseWriter, r *http.Request) error {
	why, err := reason(r, true)
	if err != nil {
		return err
	}
	target, err := pathRoom(r)
	if err != nil {
		return err
	}
	known, err := h.o.Reported.Room(r.Context(), target)
	switch {
	case err != nil:
		return err
	case !known:
		return mxerr.New(mxerr.NotFound, "The room was not found.")
	}
	return h.report(w, r, account.Report{RoomID: string(target), Reason: why})
}

// reportUser takes any user of another server: it is not for this one to know whether there is one.
func (h *Rooms) reportUser(w http.ResponseWriter, r *http.Request) error {
	why, err := reason(r, true)
	if err != nil {
		return err
	}
	user, err := parseUser(httpx.Var(r, "userId"))
	if err != nil {
		return err
	}
	if user.Server() == h.o.Server {
		known, err := h.o.Reported.User(r.Context(), user)
		switch {
		case err != nil:
			return err
		case !known:
			return mxerr.New(mxerr.NotFound, "The user was not found.")
		}
	}
	return h.report(w, r, account.Report{About: string(user), Reason: why})
}
