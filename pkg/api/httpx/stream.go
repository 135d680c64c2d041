package httpx

import (
	"errors"
	"fmt"
	"net/http"
)

// Stream answers with JSON that is written as it is made. What comes first is held: an answer that is short is sent as any other, and who fails
// before it is long can still answer with an error. Who fails later returns the error all the same, and the router breaks the connection off, so
// that nobody takes a part of the answer for all of it.
type Stream struct {
	w     http.ResponseWriter
	held  []byte
	begun bool
}

const (
	streamFrom = 64 << 10 // what is longer is sent as it comes
	streamPart = 64 << 10 // a client has its time for each
)

// errNotTaken: the client has gone, or takes nothing.
var errNotTaken = errors.New("the answer is not taken")

// NewStream makes a Stream. The handler must Close it unless it fails.
func NewStream(w http.ResponseWriter) *Stream { return &Stream{w: w} }

// Write takes a piece of the answer, and returns when the connection has taken it. A client that takes nothing for a while is given up.
func (s *Stream) Write(p []byte) (int, error) {
	if !s.begun && len(s.held)+len(p) <= streamFrom {
		s.held = append(s.held, p...)
		return len(p), nil
	}
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
		s.w.WriteHeader(http.StatusOK)
		if _, err := s.send(s.held); err != nil {
			return 0, err
		}
		s.held = nil
	}
	return s.send(p)
}

func (s *Stream) send(p []byte) (total int, err error) {
	to, done := Patient(s.w)
	defer done()
	for total < len(p) {
		n, err := to.Write(p[total:min(len(p), total+streamPart)])
		if total += n; err != nil {
			return total, fmt.Errorf("%w: %w", errNotTaken, err)
		}
	}
	_ = http.NewResponseController(s.w).Flush() // what cannot be flushed is sent in the end
	return total, nil
}

// Close ends the answer.
func (s *Stream) Close() error {
	if !s.begun {
		WriteRaw(s.w, http.StatusOK, s.held)
	}
	return nil
}
