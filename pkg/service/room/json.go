package room

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/event"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
)

// jsonError says what is wrong with JSON that a client sent.
func jsonError(err error) error {
	reason := canonjson.Reason(err)
	is := func(target error) bool { return errors.Is(reason, target) }
	switch {
	case is(canonjson.ErrSize):
		return mxerr.New(mxerr.TooLarge, "content is too large")
	case is(canonjson.ErrNumber), is(canonjson.ErrDuplicate), is(canonjson.ErrDepth), is(canonjson.ErrSurrogate):
		return mxerr.New(mxerr.BadJSON, "content is not canonical JSON: "+reason.Error())
	}
	return mxerr.New(mxerr.NotJSON, "content is not JSON")
}

// buildError says why an event cannot be built of what a client sent.
func buildError(err error) error {
	switch {
	case errors.Is(err, event.ErrTooLarge):
		return mxerr.New(mxerr.TooLarge, "event is too large")
	case errors.Is(err, event.ErrFormat), errors.Is(err, event.ErrTooMany):
		return mxerr.New(mxerr.BadJSON, err.Error())
	case canonjson.Reason(err) != nil:
		return jsonError(err)
	}
	return err
}

// object makes a client's object canonical in place; nil stays nil.
func object(raw *[]byte) error {
	if *raw == nil {
		return nil
	}
	b, err := canonjson.Canonical(*raw, canonjson.Options{MaxSize: event.MaxSize})
	if err != nil {
		return jsonError(err)
	}
	if !canonjson.IsObject(b) {
		return mxerr.New(mxerr.BadJSON, "content is not an object")
	}
	*raw = b
	return nil
}

// orEmpty is an object that may be absent.
func orEmpty(raw []byte) []byte {
	if len(raw) == 0 {
		return []byte("{}")
	}
	return raw
}

// merge gives an object with members set over those of base, which is canonical or absent.
func merge(base []byte, members map[string]any) ([]byte, error) {
	all := map[string]jsontext.Value{}
	if err := json.Unmarshal(orEmpty(base), &all); err != nil {
		return nil, jsonError(err)
	}
	for k, v := range members {
		raw, err := canonjson.Marshal(v)
		if err != nil {
			return nil, jsonError(err)
		}
		all[k] = raw
	}
	b, err := json.Marshal(all)
	if err != nil {
		return nil, jsonError(err)
	}
	return canonjson.Canonical(b, canonjson.Options{})
}

func decodeJSON(raw []byte, to any) error { return json.Unmarshal(raw, to) }

// without gives an object, which is canonical, without some members.
func without(object []byte, names ...string) ([]byte, error) {
	all := map[string]jsontext.Value{}
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, jsonError(err)
	}
	for _, n := range names {
		delete(all, n)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return nil, jsonError(err)
	}
	return canonjson.Canonical(b, canonjson.Options{})
}

// members gives the members of an object, none of anything else.
func members(object []byte) map[string]jsontext.Value {
	all := map[string]jsontext.Value{}
	if err := json.Unmarshal(orEmpty(object), &all); err != nil {
		return nil
	}
	return all
}
