package read

import (
	"math"
	"net/http"
	"strconv"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// threadSubscription tells whether the user wants to hear of a thread (MSC4306).
func (a *Accounts) threadSubscription(w http.ResponseWriter, r *http.Request) error {
	room, err := roomVar(r)
	if err != nil {
		return err
	}
	automatic, ok, err := a.o.Accounts.ThreadSubscribed(
		r.Context(), string(auth.Must(r.Context()).UserID), string(room), httpx.Var(r, "threadRootId"))
	if err != nil {
		return err
	}
	if !ok {
		return mxerr.New(mxerr.NotFound, "The thread is not subscribed to")
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]bool{"automatic": automatic})
}

// threadSubscriptions lists changes of the threads that the user wants to hear of, backward (MSC4308): for clients that sliding sync has told
// that there were more of them than it tells at a time.
func (a *Accounts) threadSubscriptions(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	if dir := p.Get("dir"); dir != "" && dir != "b" {
		return mxerr.New(mxerr.InvalidParam, "dir can be b alone")
	}
	limit, err := p.Limit(100, account.MaxThreadSubscriptions)
	if err != nil {
		return err
	}
	user := string(auth.Must(r.Context()).UserID)
	place := func(name string, otherwise shard.Pos) (shard.Pos, error) {
		s := p.Get(name)
		if s == "" {
			return otherwise, nil
		}
		at, err := a.o.Accounts.Place(user, s)
		if err != nil {
			return 0, mxerr.Newf(mxerr.InvalidParam, "%s is not a place of this server", name).WithCause(err)
		}
		return at, nil
	}
	upto, err := place("from", math.MaxInt64)
	if err != nil {
		return err
	}
	above, err := place("to", 0)
	if err != nil {
		return err
	}
	rows, more, err := a.o.Accounts.ThreadSubscriptions(r.Context(), user, above, upto, max(limit, 1))
	if err != nil {
		return err
	}
	b := msync.AppendThreadSubscriptions([]byte{'{'}, rows)
	if more {
		if len(rows) > 0 && b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(b, `"end":"`...)
		b = append(strconv.AppendInt(b, rows[len(rows)-1].Pos-1, 10), '"')
	}
	httpx.WriteRaw(w, http.StatusOK, append(b, '}'))
	return nil
}
