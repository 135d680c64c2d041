package write

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/directory"
)

// Threads knows where events stand. It is *directory.Directory.
type Threads interface {
	// Thread tells where an event stands, and in which thread.
	Thread(ctx context.Context, room id.RoomID, event id.EventID) (at directory.ThreadPlace, ok bool, err error)
	// Latest gives the place of a room's latest event.
	Latest(ctx context.Context, room id.RoomID) (int64, error)
}

// subscription gives the command on the thread that the path names (MSC4306), if the user has such a thread.
func (h *Rooms) subscription(r *http.Request) (*account.SubscribeThread, error) {
	target, err := pathRoom(r)
	if err != nil {
		return nil, err
	}
	root, err := parseEvent(httpx.Var(r, "threadRootId"))
	if err != nil {
		return nil, err
	}
	user := auth.Must(r.Context()).UserID
	ok, err := h.o.Directory.Joined(r.Context(), target, user)
	if err == nil && ok {
		_, ok, err = h.o.Threads.Thread(r.Context(), target, root)
	}
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, mxerr.New(mxerr.NotFound, "No such thread")
	}
	return &account.SubscribeThread{UserID: string(user), RoomID: string(target), Root: string(root)}, nil
}

func (h *Rooms) setThreadSubscription(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Automatic *string `json:"automatic"`
	}
	if err := httpx.DecodeOptional(r, &body); err != nil {
		return err
	}
	cmd, err := h.subscription(r)
	if err != nil {
		return err
	}
	if body.Automatic != nil {
		cause, err := parseEvent(*body.Automatic)
		if err != nil {
			return err
		}
		at, ok, err := h.o.Threads.Thread(r.Context(), id.RoomID(cmd.RoomID), cause)
		if err != nil {
			return err
		}
		if !ok || string(at.Root) != cmd.Root {
			return mxerr.New(mxerr.NotInThread, "The event that is to be the cause is not in the thread")
		}
		cmd.Automatic, cmd.Ord = true, at.Ord
	}
	if _, err := h.o.Accounts.Do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (h *Rooms) deleteThreadSubscription(w http.ResponseWriter, r *http.Request) error {
	cmd, err := h.subscription(r)
	if err != nil {
		return err
	}
	cmd.End = true
	if cmd.Ord, err = h.o.Threads.Latest(r.Context(), id.RoomID(cmd.RoomID)); err != nil {
		return err
	}
	if _, err := h.o.Accounts.Do(r.Context(), cmd); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}
