package httpx

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// maxDepth is how deep a request's JSON may nest.
const maxDepth = 100

// Decode reads the request's body, a JSON object, into v. What is not JSON (or not UTF-8) is 400 M_NOT_JSON; JSON of
// another type than v has, with a name twice in an object, or nested too deeply is 400 M_BAD_JSON; too large a body is
// 413 M_TOO_LARGE. Members that v does not know are ignored, as the specification wants.
func Decode(r *http.Request, v any) error {
	b, err := ReadBody(r)
	if err != nil {
		return err
	}
	return Unmarshal(b, v)
}

// DecodeOptional is Decode that leaves v alone when there is no body.
func DecodeOptional(r *http.Request, v any) error {
	b, err := ReadBody(r)
	if err != nil || len(b) == 0 {
		return err
	}
	return Unmarshal(b, v)
}

// DecodeStrict is Decode that refuses members which v does not know, for interfaces of our own.
func DecodeStrict(r *http.Request, v any) error {
	b, err := ReadBody(r)
	if err != nil {
		return err
	}
	return Unmarshal(b, v, json.RejectUnknownMembers(true))
}

// ReadBody reads the whole body, which is limited by the row.
func ReadBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	b, err := readAll(r.Body, r.ContentLength)
	if err == nil {
		if whole, ok := r.Body.(*body); ok {
			whole.whole = b
		}
		return b, nil
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, mxerr.New(mxerr.TooLarge, "The request is too large")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, mxerr.New(mxerr.Unknown, "The request's body did not arrive in time").WithStatus(http.StatusRequestTimeout)
	default:
		// The client broke off, or its chunks were malformed.
		return nil, mxerr.New(mxerr.NotJSON, "The request's body did not arrive whole").WithCause(err)
	}
}

// presize bounds what a length that a client claims has us allocate before anything came.
const presize = 64 << 10

// readAll is io.ReadAll for a body that says how long it is.
func readAll(r io.Reader, length int64) ([]byte, error) {
	if length <= 0 {
		return io.ReadAll(r)
	}
	b := bytes.NewBuffer(make([]byte, 0, min(length, presize)+bytes.MinRead))
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// Unmarshal is Decode for bytes.
func Unmarshal(b []byte, v any, opts ...json.Options) error {
	if tooDeep(b) {
		return mxerr.New(mxerr.BadJSON, "The JSON is nested too deeply")
	}
	err := json.Unmarshal(b, v, opts...)
	if err == nil {
		// null would leave v as it was
		if k := jsontext.Value(b).Kind(); k != '{' {
			return mxerr.New(mxerr.BadJSON, "A JSON object is expected")
		}
		return nil
	}
	var semantic *json.SemanticError
	// A wrong type is found before what follows it is read.
	if errors.As(err, &semantic) && jsontext.Value(b).IsValid(jsontext.AllowDuplicateNames(true)) {
		return mxerr.New(mxerr.BadJSON, "Bad value"+at(semantic.JSONPointer)).WithCause(err)
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return mxerr.New(mxerr.BadJSON, "A name is there twice in an object"+at(syntactic.JSONPointer)).WithCause(err)
		}
	}
	return mxerr.New(mxerr.NotJSON, "The request's body is not JSON").WithCause(err)
}

// tooDeep looks at brackets outside of strings only. The decoder has a limit of its own, of 10,000, which is more than
// what reads the value afterwards should have to bear.
func tooDeep(b []byte) bool {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return true
			}
		case '}', ']':
			depth--
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		}
	}
	return false
}

// at words a place in the request; a pointer can be as long as the request.
func at(p jsontext.Pointer) string {
	if p == "" {
		return ""
	}
	s := string(p)
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return " at " + s
}

// body counts and times the reading of a request's body. The deadline stands only while the body is read: the server
// watches the same connection for the client's leaving while the handler works.
type body struct {
	io.ReadCloser
	deadline func(time.Time) error
	time     time.Duration
	stream   bool
	read     int64
	begun    bool
	ended    bool
	whole    []byte // what ReadBody gave
}

// again gives the body to another handler after one that has read it, or has not begun to.
func (b *body) again() io.ReadCloser {
	if b.whole != nil {
		return io.NopCloser(bytes.NewReader(b.whole))
	}
	return b
}

func (b *body) Read(p []byte) (int, error) {
	if !b.begun || b.stream {
		b.begun = true
		_ = b.deadline(time.Now().Add(b.time)) // not every connection has one
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err == io.EOF {
		b.ended = true
		_ = b.deadline(time.Time{})
	}
	return n, err
}

// finish is called when the handler is done: the server reads what is left of a body before it takes the next
// request, and must not wait for it without end.
func (b *body) finish(length int64) {
	if length != 0 && !b.ended {
		_ = b.deadline(time.Now().Add(b.time))
	}
}
