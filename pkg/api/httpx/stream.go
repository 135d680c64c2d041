package httpx

import (
	"errors"
	"fmt"
	"net/http"
)

// Stream is an answer of JSON that is written as it is made. A handler that fails once it has begun returns its error all the same: the router
// breaks the connection off then, so that nobody takes a part of the answer for all of it.
type Stream struct {
	w     http.ResponseWriter
	begun bool
}

// streamPart is what a client has its time for.
const streamPart = 64 << 10

// errNotTaken: the client has gone, or takes nothing.
var errNotTaken = errors.New("the answer is not taken")

// NewStream makes a Stream. Nothing is sent before something is written to it.
func NewStream(w http.ResponseWriter) *Stream { return &Stream{w: w} }

// Write takes a piece of the answer, and returns when the connection has taken it: p can be used again. A client that takes nothing for a while
// is given up.
func (s *Stream) Write(p []byte) (total int, err error) {
	control := http.NewResponseController(s.w)
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
		s.w.WriteHeader(http.StatusOK)
		_ = control.Flush() // who is read from a connection of ours learns by it that there is more to come; what cannot be flushed is sent in the end
	}
	to, done := Patient(s.w)
	defer done()
	for total < len(p) {
		n, err := to.Write(p[total:min(len(p), total+streamPart)])
		if total += n; err != nil {
			return total, fmt.Errorf("%w: %w", errNotTaken, err)
		}
	}
	_ = control.Flush()
	return total, nil
}
