package httpx

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// Query gives the parameters behind the question mark. Malformed ones, and such as are not UTF-8 or have U+0000 in them, are 400
// M_INVALID_PARAM.
func Query(r *http.Request) (Params, error) {
	v, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Params{}, mxerr.New(mxerr.InvalidParam, "Malformed query").WithCause(err)
	}
	for _, values := range v {
		for _, s := range values {
			if !storable(s) {
				return Params{}, mxerr.New(mxerr.InvalidParam, "Bad encoding of a query parameter")
			}
		}
	}
	return Params{v}, nil
}

// Params reads query parameters. A value that does not fit is 400 M_INVALID_PARAM.
type Params struct{ values url.Values }

// Get gives a parameter, empty if it is absent.
func (p Params) Get(name string) string { return p.values.Get(name) }

// All gives all values of a parameter.
func (p Params) All(name string) []string { return p.values[name] }

// Has says whether a parameter is there.
func (p Params) Has(name string) bool { return p.values.Has(name) }

// Required gives a parameter that must be there, else 400 M_MISSING_PARAM.
func (p Params) Required(name string) (string, error) {
	if v := p.values.Get(name); v != "" {
		return v, nil
	}
	return "", mxerr.New(mxerr.MissingParam, "Missing query parameter "+name)
}

// Limit gives the parameter "limit": def if absent, and never more than most.
func (p Params) Limit(def, most int) (int, error) {
	n, ok, err := p.Int("limit")
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return def, nil
	case n < 0:
		return 0, mxerr.New(mxerr.InvalidParam, "limit is negative")
	default:
		return int(min(n, int64(most))), nil
	}
}

// Int gives a whole number; ok is false if it is absent.
func (p Params) Int(name string) (n int64, ok bool, err error) {
	s := p.values.Get(name)
	if s == "" {
		return 0, false, nil
	}
	n, err = strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, false, mxerr.New(mxerr.InvalidParam, name+" is not a number")
	}
	return n, true, nil
}

// maxTimestamp is the greatest whole number that JSON carries safely; no instant is later.
const maxTimestamp = 1<<53 - 1

// Timestamp gives milliseconds since the epoch; ok is false if it is absent.
func (p Params) Timestamp(name string) (ms int64, ok bool, err error) {
	ms, ok, err = p.Int(name)
	if err == nil && ok && (ms < 0 || ms > maxTimestamp) {
		return 0, false, mxerr.New(mxerr.InvalidParam, name+" is not a timestamp")
	}
	return ms, ok, err
}

// Milliseconds gives a duration: 0 if absent or negative, and never more than most.
func (p Params) Milliseconds(name string, most time.Duration) (time.Duration, error) {
	n, _, err := p.Int(name)
	if err != nil {
		return 0, err
	}
	n = min(max(n, 0), most.Milliseconds())
	return time.Duration(n) * time.Millisecond, nil
}

// Bool gives a truth value: def if absent.
func (p Params) Bool(name string, def bool) (bool, error) {
	switch p.values.Get(name) {
	case "":
		return def, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	default:
		return false, mxerr.New(mxerr.InvalidParam, name+" is neither true nor false")
	}
}

// Dir is a direction of reading.
type Dir byte

// The directions: from old to new, and back.
const (
	Forward  Dir = 'f'
	Backward Dir = 'b'
)

// Dir gives the parameter "dir", def if absent; with a def of 0 it is required.
func (p Params) Dir(def Dir) (Dir, error) {
	switch p.values.Get("dir") {
	case "f":
		return Forward, nil
	case "b":
		return Backward, nil
	case "":
		if def != 0 {
			return def, nil
		}
		return 0, mxerr.New(mxerr.MissingParam, "Missing query parameter dir")
	default:
		return 0, mxerr.New(mxerr.InvalidParam, "dir is neither f nor b")
	}
}

// Patience gives how long a client would wait: def if it does not say, and never more than most.
func (p Params) Patience(name string, def, most time.Duration) (time.Duration, error) {
	if !p.Has(name) {
		return def, nil
	}
	return p.Milliseconds(name, most)
}

// Thumbnail is which thumbnail a request asks for.
type Thumbnail struct {
	Width, Height  int
	Crop, Animated bool
}

// Thumbnail gives the parameters of that.
func (p Params) Thumbnail() (t Thumbnail, err error) {
	const most = 1 << 15
	for _, side := range []struct {
		name string
		to   *int
	}{{"width", &t.Width}, {"height", &t.Height}} {
		n, ok, err := p.Int(side.name)
		switch {
		case err != nil:
			return t, err
		case !ok:
			return t, mxerr.New(mxerr.MissingParam, "Missing query parameter "+side.name)
		case n <= 0 || n > most:
			return t, mxerr.Newf(mxerr.InvalidParam, "%s is not from 1 to %d", side.name, most)
		}
		*side.to = int(n)
	}
	switch p.Get("method") {
	case "crop":
		t.Crop = true
	case "scale", "":
	default:
		return t, mxerr.New(mxerr.InvalidParam, "method is neither crop nor scale")
	}
	t.Animated, err = p.Bool("animated", false)
	return t, err
}
