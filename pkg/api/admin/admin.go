// Package admin holds the handlers of the admin API, at the paths that operators' tools call. That an administrator asks is seen to by
// the gate, as the route table says. Each handler decodes, calls one verb of a service, and encodes.
//
// It is imported by the composition root.
package admin

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/notice"
)

// Notices sends server notices. It is *notice.Sender.
type Notices interface {
	Send(ctx context.Context, n *notice.Notice) (id.EventID, error)
}

// Admin answers the endpoints.
type Admin struct{ notices Notices }

// New makes the handlers.
func New(notices Notices) *Admin { return &Admin{notices} }

// Handlers gives the handlers by the names of their rows.
func (a *Admin) Handlers() httpx.Handlers {
	return httpx.Handlers{"adminSendServerNotice": a.sendNotice, "adminSendServerNoticeTxn": a.sendNotice}
}

// maxTxnID is the longest transaction id, in bytes.
const maxTxnID = 255

func (a *Admin) sendNotice(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		UserID   *string        `json:"user_id"`
		Type     string         `json:"type"`
		StateKey *string        `json:"state_key"`
		Content  jsontext.Value `json:"content"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	switch {
	case q.UserID == nil:
		return mxerr.New(mxerr.MissingParam, "The request names no user_id")
	case len(q.Content) == 0:
		return mxerr.New(mxerr.MissingParam, "The request has no content")
	case !canonjson.IsObject(q.Content):
		return mxerr.New(mxerr.BadJSON, "content is not an object")
	}
	to, err := id.ParseUserID(*q.UserID)
	if err != nil {
		return mxerr.New(mxerr.InvalidParam, "Invalid user id").WithCause(err)
	}
	n := &notice.Notice{
		To: to, By: string(auth.Must(r.Context()).UserID), Txn: httpx.Var(r, "txnId"),
		Event: notice.Event{Type: q.Type, StateKey: q.StateKey, Content: q.Content},
	}
	if len(n.Txn) > maxTxnID {
		return mxerr.Newf(mxerr.InvalidParam, "The transaction id is longer than %d bytes", maxTxnID)
	}
	event, err := a.notices.Send(r.Context(), n)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]id.EventID{"event_id": event})
}
