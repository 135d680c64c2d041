package httpx

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/heddle-im/heddle/pkg/infra/cache"
	"github.com/heddle-im/heddle/pkg/infra/telemetry"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

const requestIDHeader = telemetry.RequestIDHeader

func newRequestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}

// RequestID gives the id of the request that w answers, for logs.
func RequestID(w http.ResponseWriter) string { return w.Header().Get(requestIDHeader) }

// response remembers what was answered.
type response struct {
	http.ResponseWriter
	status  int
	written int64

	parking *Parking // nil: nothing is parked
	later   *later
	parked  bool // it is answered elsewhere, when there is something to say

	pressure *cache.Pressure // that let the request in, and has not been told that it is done; may be nil
}

// leave says that what the request takes is there by now: it is answered, or only waits.
func (w *response) leave() {
	w.pressure.Leave()
	w.pressure = nil
}

func (w *response) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	return n, err
}

// ReadFrom lets the kernel copy files to sockets.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := io.Copy(w.ResponseWriter, src)
	w.written += n
	return n, err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteJSON answers with v. If v cannot be marshalled nothing is written.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	WriteRaw(w, status, b)
	return nil
}

// WriteRaw answers with JSON that is already bytes.
func WriteRaw(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone is not our error
}

// WriteEmpty answers 200 with an empty object.
func WriteEmpty(w http.ResponseWriter) error {
	WriteRaw(w, http.StatusOK, []byte("{}"))
	return nil
}

// WriteError answers with an error. What is not a mxerr.Error is a 500 that says nothing of itself.
func WriteError(w http.ResponseWriter, err error) {
	e := classify(err)
	if e == nil {
		e = mxerr.Internal(nil)
	}
	if ms, ok := e.RetryAfter(); ok {
		w.Header().Set("Retry-After", strconv.FormatInt((ms+999)/1000, 10))
	} else if e.HTTPStatus == http.StatusServiceUnavailable && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	WriteRaw(w, e.HTTPStatus, e.AppendJSON(nil))
}

// Whoever is turned away for want of memory is asked to wait for a time between these.
const busyFrom, busyTo = 2 * time.Second, 10 * time.Second

func classify(err error) *mxerr.Error {
	var tooLarge *http.MaxBytesError
	var e *mxerr.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &tooLarge):
		return mxerr.New(mxerr.TooLarge, "The request is too large")
	case errors.Is(err, cache.ErrBusy):
		// Not all who are turned away come back at once.
		busy := mxerr.New(mxerr.LimitExceeded, "The server is busy").WithStatus(http.StatusServiceUnavailable).WithCause(err)
		busy.RetryAfterMs = busyFrom.Milliseconds() + mathrand.Int64N((busyTo - busyFrom).Milliseconds())
		return busy
	case errors.Is(err, context.DeadlineExceeded):
		return mxerr.New(mxerr.Unknown, "The server took too long").WithStatus(http.StatusGatewayTimeout).WithCause(err)
	default:
		return mxerr.From(err)
	}
}
