package read

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/service/msync"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
)

// E2EE answers what reads keys, dehydrated devices and key backups.
type E2EE struct {
	keys *e2ee.Reader
	sync *msync.Engine // knows what sync tokens say
}

// NewE2EE makes the handlers.
func NewE2EE(keys *e2ee.Reader, sync *msync.Engine) *E2EE { return &E2EE{keys, sync} }

// Handlers gives the handlers by the names of their rows.
func (e *E2EE) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"queryKeys":                 e.query,
		"getKeysChanges":            e.changes,
		"getRoomKeysVersionCurrent": e.backup,
		"getRoomKeysVersion":        e.backup,
		"getRoomKeys":               e.backupKeys,
		"getRoomKeysByRoomId":       e.backupKeys,
		"getRoomKeyBySessionId":     e.backupKeys,
		"getDehydratedDevice":       e.dehydrated,
		"getDehydratedDeviceEvents": e.dehydratedEvents,
	}
}

func (e *E2EE) query(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Devices map[string][]string `json:"device_keys"`
		Timeout *int64              `json:"timeout"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Devices == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no device_keys")
	}
	wait, err := e2ee.Wait(q.Timeout)
	if err != nil {
		return err
	}
	keys, err := e.keys.QueryWithin(r.Context(), auth.Must(r.Context()).UserID, q.Devices, wait)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, keys)
}

// changes tells what happened between two tokens, and perhaps since: what is told too much is asked for once too often.
func (e *E2EE) changes(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	from, err := p.Required("from")
	if err != nil {
		return err
	}
	to, err := p.Required("to")
	if err != nil {
		return err
	}
	above, err := e.sync.Read(r.Context(), from)
	if err != nil {
		return err
	}
	if _, err := e.sync.Read(r.Context(), to); err != nil {
		return err
	}
	changed, left, err := e.keys.Changes(r.Context(), auth.Must(r.Context()).UserID, above)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string][]string{"changed": changed, "left": left})
}

func (e *E2EE) backup(w http.ResponseWriter, r *http.Request) error {
	var version int64
	if v := httpx.Var(r, "version"); v != "" {
		var err error
		if version, err = e2ee.ParseVersion(v); err != nil {
			return err
		}
	}
	b, err := e.keys.Backup(r.Context(), auth.Must(r.Context()).UserID, version)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Algorithm string          `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
		Count     int64           `json:"count"`
		ETag      string          `json:"etag"`
		Version   string          `json:"version"`
	}{b.Algorithm, b.AuthData, b.Count, strconv.FormatInt(b.ETag, 10), strconv.FormatInt(b.Version, 10)})
}

// backedUp is a session's key as clients read it.
type backedUp struct {
	FirstIndex int64           `json:"first_message_index"`
	Forwarded  int64           `json:"forwarded_count"`
	Verified   bool            `json:"is_verified"`
	Data       json.RawMessage `json:"session_data"`
}

func (e *E2EE) backupKeys(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	v, err := p.Required("version")
	if err != nil {
		return err
	}
	version, err := e2ee.ParseVersion(v)
	if err != nil {
		return err
	}
	room, session := httpx.Var(r, "roomId"), httpx.Var(r, "sessionId")
	a := backupAnswer{one: session != "", oneRoom: room != ""}
	if err := e.keys.BackupKeys(r.Context(), auth.Must(r.Context()).UserID, version, room, session, a.add); err != nil {
		return err
	}
	if a.err == nil && a.one && a.n == 0 {
		return mxerr.New(mxerr.NotFound, "The backup has no key of that session")
	}
	if a.err != nil {
		return a.err
	}
	httpx.WriteRaw(w, http.StatusOK, a.end())
	return nil
}

// backupAnswer puts keys, which come in the order of rooms, together for a client: a backup can be large, and is in memory once.
type backupAnswer struct {
	one, oneRoom bool // a session, or a room, was asked for
	b            []byte
	room         string
	n            int
	err          error
}

func (a *backupAnswer) add(k *e2ee.BackupKey) {
	key, err := json.Marshal(shownKey(k))
	if err != nil {
		a.err = err
		return
	}
	switch {
	case a.one:
		a.b = key
	case a.n > 0 && a.room == k.RoomID:
		a.b = append(a.b, ',')
	case a.n > 0:
		a.b = append(a.b, `}},`...)
	}
	if !a.one {
		if !a.oneRoom && (a.n == 0 || a.room != k.RoomID) {
			a.b = append(canonjson.AppendString(a.b, k.RoomID), `:{"sessions":{`...)
		}
		a.b = append(append(canonjson.AppendString(a.b, k.SessionID), ':'), key...)
	}
	a.room = k.RoomID
	a.n++
}

func (a *backupAnswer) end() []byte {
	switch {
	case a.one:
		return a.b
	case a.oneRoom:
		return append(append([]byte(`{"sessions":{`), a.b...), `}}`...)
	case a.n == 0:
		return []byte(`{"rooms":{}}`)
	}
	return append(append([]byte(`{"rooms":{`), a.b...), `}}}}`...)
}

func shownKey(k *e2ee.BackupKey) backedUp {
	return backedUp{k.FirstIndex, k.Forwarded, k.Verified, k.Data}
}

func (e *E2EE) dehydrated(w http.ResponseWriter, r *http.Request) error {
	d, err := e.keys.Dehydrated(r.Context(), auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, d)
}

// dehydratedEvents gives messages to the dehydrated device. Older clients ask by POST, and stop at an answer without events; newer ones by
// GET, and stop at one without next_batch.
func (e *E2EE) dehydratedEvents(w http.ResponseWriter, r *http.Request) error {
	p, err := httpx.Query(r)
	if err != nil {
		return err
	}
	from := p.Get("from")
	if r.Method == http.MethodPost {
		q := struct {
			Next string `json:"next_batch"`
		}{p.Get("next_batch")}
		if err := httpx.DecodeOptional(r, &q); err != nil {
			return err
		}
		from = q.Next
	}
	var after int64
	if from != "" {
		if after, err = strconv.ParseInt(from, 10, 64); err != nil || after < 0 {
			return mxerr.New(mxerr.InvalidParam, "Not a place among the messages to a dehydrated device")
		}
	}
	m, err := e.keys.DehydratedMessages(r.Context(), auth.Must(r.Context()).UserID, httpx.Var(r, "deviceId"), shard.Pos(after))
	if err != nil {
		return err
	}
	answer := map[string]any{"events": m.Events}
	if m.More || r.Method == http.MethodPost {
		answer["next_batch"] = strconv.FormatInt(int64(m.Next), 10)
	}
	return httpx.WriteJSON(w, http.StatusOK, answer)
}
