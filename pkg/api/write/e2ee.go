package write

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/e2ee"
)

// E2EE answers what changes keys, messages to devices, dehydrated devices and key backups.
type E2EE struct {
	front    *e2ee.Front
	accounts *Accounts // has users confirm
}

// NewE2EE makes the handlers.
func NewE2EE(front *e2ee.Front, accounts *Accounts) *E2EE { return &E2EE{front, accounts} }

// Handlers gives the handlers by the names of their rows.
func (e *E2EE) Handlers() httpx.Handlers {
	return httpx.Handlers{
		"uploadKeys":                   e.uploadKeys,
		"claimKeys":                    e.claimKeys,
		"uploadCrossSigningKeys":       e.uploadCrossSigning,
		"uploadCrossSigningSignatures": e.uploadSignatures,
		"sendToDevice":                 e.sendToDevice,
		"postRoomKeysVersion":          e.newBackup,
		"putRoomKeysVersion":           e.changeBackup,
		"deleteRoomKeysVersion":        e.deleteBackup,
		"putRoomKeys":                  e.putKeys,
		"putRoomKeysByRoomId":          e.putKeys,
		"putRoomKeyBySessionId":        e.putKeys,
		"deleteRoomKeys":               e.deleteKeys,
		"deleteRoomKeysByRoomId":       e.deleteKeys,
		"deleteRoomKeyBySessionId":     e.deleteKeys,
		"putDehydratedDevice":          e.dehydrate,
		"deleteDehydratedDevice":       e.rehydrated,
	}
}

// withDevice gives the caller, who must be on a device.
func withDevice(r *http.Request) (*auth.Caller, error) {
	c := auth.Must(r.Context())
	if c.DeviceID == "" {
		return nil, mxerr.New(mxerr.InvalidParam, "The access token belongs to no device")
	}
	return c, nil
}

func (e *E2EE) uploadKeys(w http.ResponseWriter, r *http.Request) error {
	c, err := withDevice(r)
	if err != nil {
		return err
	}
	var q e2ee.Upload
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	counts, err := e.front.UploadKeys(r.Context(), c.UserID, c.DeviceID, &q)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]map[string]int64{"one_time_key_counts": counts})
}

func (e *E2EE) claimKeys(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		Keys    map[string]map[string]string `json:"one_time_keys"`
		Timeout *int64                       `json:"timeout"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Keys == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no one_time_keys")
	}
	wait, err := e2ee.Wait(q.Timeout)
	if err != nil {
		return err
	}
	a, err := e.front.ClaimWithin(r.Context(), q.Keys, wait)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, a)
}

func (e *E2EE) uploadCrossSigning(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		e2ee.CrossSigning
		Auth *authDict `json:"auth"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	c := auth.Must(r.Context())
	// Who has no keys yet, or brings the same again, confirms nothing.
	done, err := e.front.PutCrossSigning(r.Context(), c.UserID, &q.CrossSigning, false)
	if err != nil {
		return err
	}
	if !done {
		ok, err := e.accounts.confirm(w, r, q.Auth, resetKeys, digest(q.Master), digest(q.SelfSigning), digest(q.UserSigning))
		if err != nil || !ok {
			return err
		}
		if _, err := e.front.PutCrossSigning(r.Context(), c.UserID, &q.CrossSigning, true); err != nil {
			return err
		}
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

// digestOf stands for a secret of a request.
func digestOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return string(sum[:])
}

// digest stands for a value of a request, however it was written.
func digest(v json.RawMessage) string {
	j := jsontext.Value(append([]byte(nil), v...))
	if len(j) > 0 && j.Canonicalize() != nil {
		j = jsontext.Value(v)
	}
	sum := sha256.Sum256(j)
	return string(sum[:])
}

func (e *E2EE) uploadSignatures(w http.ResponseWriter, r *http.Request) error {
	var q map[string]map[string]json.RawMessage
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	failures, err := e.front.PutSignatures(r.Context(), auth.Must(r.Context()).UserID, q)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"failures": failures})
}

func (e *E2EE) sendToDevice(w http.ResponseWriter, r *http.Request) error {
	c := auth.Must(r.Context())
	var q struct {
		Messages map[string]map[string]json.RawMessage `json:"messages"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	if q.Messages == nil {
		return mxerr.New(mxerr.MissingParam, "The request has no messages")
	}
	err := e.front.Send(r.Context(), &e2ee.Sending{
		Sender: c.UserID, Device: c.DeviceID, Type: httpx.Var(r, "eventType"), Txn: httpx.Var(r, "txnId"), Messages: q.Messages,
	})
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, empty)
}

func (e *E2EE) dehydrate(w http.ResponseWriter, r *http.Request) error {
	var q struct {
		e2ee.Upload
		DeviceID string          `json:"device_id"`
		Data     json.RawMessage `json:"device_data"`
		Name     string          `json:"initial_device_display_name"`
	}
	if err := httpx.Decode(r, &q); err != nil {
		return err
	}
	device, err := e.front.Dehydrate(r.Context(), auth.Must(r.Context()).UserID, q.DeviceID, q.Name, q.Data, &q.Upload)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"device_id": device})
}

func (e *E2EE) rehydrated(w http.ResponseWriter, r *http.Request) error {
	device, err := e.front.Rehydrated(r.Context(), auth.Must(r.Context()).UserID)
	if err != nil {
		return err
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]string{"device_id": device})
}
