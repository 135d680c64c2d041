// Package mxerr is what goes wrong towards a client or another server: an errcode of the specification
// with its HTTP status, a text that strangers may read, and a cause that they may not.
//
// Code that finds a failure returns an *Error (wrapped or not); the HTTP edge turns whatever it gets
// with From and writes AppendJSON. The cause goes to the log only.
//
// Guarantees: an *Error is immutable, its With… and Wrap methods return changed copies; safe for
// concurrent use. Pure.
//
// Imported by everything but infra/; imports matrix/canonjson.
package mxerr

import (
	"errors"
	"fmt"
	"slices"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
)

// An Error is one failure as the specification words it.
type Error struct {
	code    Code
	status  int
	message string
	cause   error
	extra   []member
}

type member struct {
	key   string
	value []byte // JSON
}

// New makes an error with the code's usual status. The message is public.
func New(code Code, message string) *Error {
	return &Error{code: code, status: code.Status(), message: message}
}

// Newf is New with a format.
func Newf(code Code, format string, args ...any) *Error {
	return New(code, fmt.Sprintf(format, args...))
}

// Code returns the errcode.
func (e *Error) Code() Code { return e.code }

// Status returns the HTTP status.
func (e *Error) Status() int { return e.status }

// Message returns the public text.
func (e *Error) Message() string { return e.message }

// Error implements error, for logs: it includes the cause.
func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.code, e.message, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.code, e.message)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is tells whether target is an *Error of the same code, so that errors.Is(err, mxerr.New(code, ""))
// holds. HasCode is shorter.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error) //nolint:errorlint // Is must not unwrap
	return ok && t.code == e.code
}

// Wrap returns the error with a cause, which stays private.
func (e *Error) Wrap(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// WithStatus returns the error with another HTTP status.
func (e *Error) WithStatus(status int) *Error {
	c := *e
	c.status = status
	return &c
}

// With returns the error with one more member in its JSON. The value is marshalled; one that cannot be
// is a mistake in the program, and left out.
func (e *Error) With(key string, value any) *Error {
	raw, err := canonjson.Marshal(value)
	if err != nil {
		return e
	}
	c := *e
	c.extra = append(slices.DeleteFunc(slices.Clone(e.extra), func(m member) bool { return m.key == key }), member{key, raw})
	return &c
}

// AppendJSON appends the response body.
func (e *Error) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"errcode":`...)
	dst = canonjson.AppendString(dst, string(e.code))
	dst = append(dst, `,"error":`...)
	dst = canonjson.AppendString(dst, e.message)
	for _, m := range e.extra {
		dst = append(dst, ',')
		dst = canonjson.AppendString(dst, m.key)
		dst = append(dst, ':')
		dst = append(dst, m.value...)
	}
	return append(dst, '}')
}

// MarshalJSON implements json.Marshaler.
func (e *Error) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// RetryAfterMS returns the waiting time of a LimitExceeded, for the Retry-After header; ok is false if
// there is none.
func (e *Error) RetryAfterMS() (ms int64, ok bool) {
	for _, m := range e.extra {
		if m.key == "retry_after_ms" {
			return canonjson.Int(m.value)
		}
	}
	return 0, false
}

// From returns the *Error that err is or wraps. Any other error becomes a 500 that says nothing of it,
// with err as its cause. A nil err gives nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return Internal(err)
}

// HasCode tells whether err is or wraps an *Error with the code.
func HasCode(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.code == code
}

// Parse reads an error response of another server; ok is false if body has no errcode. Its message is
// cut to 1,000 bytes.
func Parse(status int, body []byte) (e *Error, ok bool) {
	c, err := canonjson.Canonical(body, canonjson.Options{Mode: canonjson.Lax, MaxSize: 64 << 10})
	if err != nil {
		return nil, false
	}
	code, ok := canonjson.GetString(c, "errcode")
	if !ok || code == "" || len(code) > 255 {
		return nil, false
	}
	message, _ := canonjson.GetString(c, "error")
	e = &Error{code: Code(code), status: status, message: message[:min(len(message), 1000)]}
	for it := canonjson.Walk(c); it.Next(); {
		if !it.KeyIs("errcode") && !it.KeyIs("error") {
			e.extra = append(e.extra, member{it.KeyString(), it.Value()})
		}
	}
	return e, true
}
