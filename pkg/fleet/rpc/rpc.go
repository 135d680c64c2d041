package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/shardlog/wire"
)

var (
	// ErrNotOwner says that the one who was asked does not write the shard. Handlers return it when they find out so late.
	ErrNotOwner = errors.New("not the owner of the shard")
	// ErrRetry says that the request failed in a way that may pass; handlers wrap it.
	ErrRetry = errors.New("request may be tried again")
	// ErrUnavailable says that no answer was to be had before the deadline.
	ErrUnavailable = errors.New("the shard's writer could not be reached in time")
	// ErrTooLarge says that a request exceeds what is carried.
	ErrTooLarge = errors.New("request between workers is too large")
)

// Request is what is asked of a shard's writer.
type Request struct {
	Shard  shard.ID
	Method string // words of letters, digits, dashes and underscores, with dots in between
	// Key makes the request safe to repeat: the handler gives the same key its effect once.
	Key     []byte
	Payload []byte
}

// Handler does a method. Its error says what the caller gets: an *mxerr.Error in its chain is the refusal, ErrNotOwner
// and ErrRetry (or the end of ctx) let the caller try again, anything else is an internal error.
type Handler func(ctx context.Context, r Request) ([]byte, error)

// Limits and habits that both ends share.
const (
	// DefaultMaxBytes bounds a request and an answer, envelope included; it is below what a NATS server takes by default.
	DefaultMaxBytes = 768 << 10
	// maxTimeout bounds how long a handler runs, whatever the caller says.
	maxTimeout = time.Minute
	// defaultTimeout is the deadline of a caller that has none.
	defaultTimeout = 30 * time.Second
	// Path is where the HTTP way in is mounted.
	Path = "/_heddle/rpc"
)

func subject(s shard.ID, method string) string { return "rpc." + s.String() + "." + method }

func (r Request) check(maxBytes int) error {
	for part := range strings.SplitSeq(r.Method, ".") { // each is a token of the subject
		if part == "" || strings.ContainsFunc(part, notOfToken) {
			return fmt.Errorf("method %q cannot be sent", r.Method)
		}
	}
	if len(r.Payload)+len(r.Key)+len(r.Method)+64 > maxBytes {
		return fmt.Errorf("%s: %w", r.Method, ErrTooLarge)
	}
	return nil
}

func notOfToken(c rune) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		return false
	}
	return true
}

// toWire makes the answer to a request.
func toWire(payload []byte, err error) *wire.Response {
	switch {
	case err == nil:
		return &wire.Response{Status: wire.Response_STATUS_OK, Payload: payload}
	case errors.Is(err, ErrNotOwner):
		return &wire.Response{Status: wire.Response_STATUS_NOT_OWNER}
	}
	if e, ok := errors.AsType[*mxerr.Error](err); ok {
		return refused(e)
	}
	if errors.Is(err, ErrRetry) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &wire.Response{Status: wire.Response_STATUS_RETRY}
	}
	return refused(mxerr.Internal(err))
}

func refused(e *mxerr.Error) *wire.Response {
	w := &wire.Error{
		HttpStatus: int32(e.HTTPStatus), Errcode: string(e.Code), Message: strings.ToValidUTF8(e.Message, "\uFFFD"),
		RetryAfterMs: e.RetryAfterMs,
	}
	if len(e.Extra) > 0 {
		extra, err := json.Marshal(e.Extra)
		if err != nil { // a mistake in the program; the refusal itself still says what it must
			extra = nil
		}
		w.Extra = extra
	}
	return &wire.Response{Status: wire.Response_STATUS_REFUSED, Error: w}
}

// fromWire reads an answer.
func fromWire(r *wire.Response) ([]byte, error) {
	switch r.GetStatus() {
	case wire.Response_STATUS_OK:
		return r.GetPayload(), nil
	case wire.Response_STATUS_NOT_OWNER:
		return nil, ErrNotOwner
	case wire.Response_STATUS_RETRY:
		return nil, ErrRetry
	case wire.Response_STATUS_REFUSED:
		w := r.GetError()
		e := &mxerr.Error{
			Code: mxerr.Code(w.GetErrcode()), HTTPStatus: int(w.GetHttpStatus()), Message: w.GetMessage(),
			RetryAfterMs: w.GetRetryAfterMs(),
		}
		if len(w.GetExtra()) > 0 {
			d := json.NewDecoder(bytes.NewReader(w.GetExtra()))
			d.UseNumber()
			if err := d.Decode(&e.Extra); err != nil {
				return nil, fmt.Errorf("read a refusal: %w", err)
			}
			for k, v := range e.Extra {
				e.Extra[k] = numbers(v)
			}
		}
		return nil, e
	}
	return nil, fmt.Errorf("answer has status %d: %w", r.GetStatus(), ErrRetry)
}

// numbers turns what UseNumber left into Go's numbers, integers with all their digits.
func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64() // out of range: as near as there is
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	}
	return v
}

// final tells whether an outcome is the writer's word, so that nobody asks again.
func final(err error) bool {
	if err == nil {
		return true
	}
	_, ok := errors.AsType[*mxerr.Error](err)
	return ok
}
