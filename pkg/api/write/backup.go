package write

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
)

func (e *E2EE) newBackup(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Algorithm string          `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	v, err := e.front.PutBackup(r.Context(), auth.Must(r.Context()).UserID, 0, q.Algorithm, q.AuthData)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"version": strconv.FormatInt(v, 10)})
}

func (e *E2EE) changeBackup(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Algorithm string          `json:"algorithm"`
		AuthData  json.RawMessage `json:"auth_data"`
		Version   *string         `json:"version"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	version, err := e2ee.ParseVersion(httpx.Var(r, "version"))
	if err != nil {
		return err
	}
	if q.Version != nil && *q.Version != httpx.Var(r, "version") {
		return mxerr.New(mxerr.InvalidParam, "The version in the body is not that of the path")
	}
	if _, err := e.front.PutBackup(r.Context(), auth.Must(r.Context()).UserID, version, q.Algorithm, q.AuthData); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (e *E2EE) deleteBackup(w http.ResponseWriter, r *http.Request) error {
	version, err := e2ee.ParseVersion(httpx.Var(r, "version"))
	if err != nil {
		return err
	}
	if err := e.front.DeleteBackup(r.Context(), auth.Must(r.Context()).UserID, version); err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// stored is the state of a backup after keys came or went.
type stored struct {
	ETag  string `json:"etag"`
	Count int64  `json:"count"`
}

func writeStored(w http.ResponseWriter, s e2ee.Stored) error {
	return httpx.WriteJSON(w, http.StatusOK, stored{strconv.FormatInt(s.ETag, 10), s.Count})
}

// backupVersion gives the version that a request on keys of a backup names.
func backupVersion(r *http.Request) (int64, error) {
	p, err := httpx.Query(r)
	if err != nil {
		return 0, err
	}
	v, err := p.Required("version")
	if err != nil {
		return 0, err
	}
	return e2ee.ParseVersion(v)
}

func (e *E2EE) putKeys(w http.ResponseWriter, r *http.Request) error {
	room, session := httpx.Var(r, "roomId"), httpx.Var(r, "sessionId")
	var err error
	keys := make(map[string]map[string]e2ee.SessionKey)
	type sessions struct {
		Sessions map[string]e2ee.SessionKey `json:"sessions"`
	}
	missing := false
	switch {
	case session != "":
		var q e2ee.SessionKey
		err = httpx.Decode(r, &q)
		keys[room] = map[string]e2ee.SessionKey{session: q}
	case room != "":
		var q sessions
		err = httpx.Decode(r, &q)
		keys[room], missing = q.Sessions, q.Sessions == nil
	default:
		var q struct {
			Rooms map[string]sessions `json:"rooms"`
		}
		err = httpx.Decode(r, &q)
		missing = q.Rooms == nil
		for room, s := range q.Rooms {
			keys[room] = s.Sessions
			missing = missing || s.Sessions == nil
		}
	}
	if err != nil {
		return err
	}
	if missing {
		return mxerr.New(mxerr.BadJSON, "The request lacks rooms or sessions")
	}
	version, err := backupVersion(r)
	if err != nil {
		return err
	}
	s, err := e.front.BackUp(r.Context(), auth.Must(r.Context()).UserID, version, keys)
	if err != nil {
		return err
	}
	return writeStored(w, s)
}

func (e *E2EE) deleteKeys(w http.ResponseWriter, r *http.Request) error {
	version, err := backupVersion(r)
	if err != nil {
		return err
	}
	s, err := e.front.Drop(r.Context(), auth.Must(r.Context()).UserID, version, httpx.Var(r, "roomId"), httpx.Var(r, "sessionId"))
	if err != nil {
		return err
	}
	return writeStored(w, s)
}
