package event

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Reasons for which an event is refused; match them with errors.Is. Malformed JSON is a
// *canonjson.Error.
var (
	ErrFormat   = errors.New("event does not have the format of its room version")
	ErrTooLarge = errors.New("event too large")
	ErrTooMany  = errors.New("event names too many events")
)

// maxRaw bounds what is read of one event before it is brought into canonical form, in which no byte
// takes more than six ("\u0041").
const maxRaw = 6 * MaxSize

// Parse reads an event that came from elsewhere. An error means that it must be dropped. If the content
// hash does not match, the result is the redacted event and says so by HashMismatch. Signatures are not
// checked: see Verify. data is not kept.
func Parse(rules *roomver.Rules, data []byte) (*Event, error) {
	e, err := decode(rules, data)
	if err != nil {
		return nil, err
	}
	stated, err := e.statedContentHash()
	if err != nil {
		return nil, err
	}
	actual, err := e.finish("")
	if err != nil {
		return nil, err
	}
	if stated != actual {
		e = e.Redact()
		e.flags |= flagHashMismatch
	}
	return e, nil
}

// ParseTrusted reads an event as JSON gave it, which was stored after it had passed its checks. An empty
// eventID is derived. data is kept and must not change.
func ParseTrusted(rules *roomver.Rules, data []byte, eventID id.EventID) (*Event, error) {
	e := &Event{rules: rules, json: data}
	var stack [24]canonjson.Member
	if err := e.place(canonjson.Index(data, stack[:0]), false); err != nil {
		return nil, err
	}
	if err := e.read(); err != nil {
		return nil, err
	}
	if err := e.identify(eventID); err != nil {
		return nil, err
	}
	return e, nil
}

// decode brings data into canonical form, finds its members and checks their format.
func decode(rules *roomver.Rules, data []byte) (*Event, error) {
	if len(data) > maxRaw {
		return nil, ErrTooLarge
	}
	o := canonjson.Options{Mode: canonjson.Lax}
	if rules.StrictJSON {
		o.Mode = canonjson.Strict
	}
	var stack [24]canonjson.Member
	buf, members, err := canonjson.AppendIndexed(make([]byte, 0, len(data)), data, o, stack[:0])
	if err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	if len(buf) > MaxSize {
		return nil, ErrTooLarge
	}
	if cap(buf) > len(buf)+len(buf)/8+64 {
		buf = append(make([]byte, 0, len(buf)), buf...)
	}
	e := &Event{rules: rules, json: buf}
	if err := e.place(members, true); err != nil {
		return nil, err
	}
	if err := e.read(); err != nil {
		return nil, err
	}
	return e, e.checkFormat()
}

// place notes where the known members are, and cuts unsigned out. own says that e.json may be written to.
func (e *Event) place(members []canonjson.Member, own bool) error {
	if len(e.json) == 0 || e.json[0] != '{' {
		return fmt.Errorf("%w: not an object", ErrFormat)
	}
	shift := 0
	for i, m := range members {
		f := fieldOf(e.json[m.KeyStart+1-shift : m.KeyEnd-1-shift])
		if f == fUnsigned {
			e.unsigned = append([]byte(nil), e.json[m.ValueStart:m.ValueEnd]...)
			if e.unsigned[0] != '{' {
				return fmt.Errorf("%w: unsigned is not an object", ErrFormat)
			}
			// The member goes with the comma before it, or after it if it is the first one.
			from, to := m.KeyStart, m.ValueEnd
			switch {
			case i > 0:
				from--
			case len(members) > 1:
				to++
			}
			if !own {
				e.json = append([]byte(nil), e.json...)
			}
			e.json = append(e.json[:from], e.json[to:]...)
			shift = to - from
			continue
		}
		if f < numFields {
			e.f[f] = span{uint32(m.ValueStart - shift), uint32(m.ValueEnd - shift)}
		}
	}
	return nil
}

// read takes the values of the known members out of the JSON.
func (e *Event) read() error {
	if !canonjson.IsObject(e.value(fContent)) {
		return fmt.Errorf("%w: content", ErrFormat)
	}
	var ok bool
	if e.depth, ok = canonjson.Int(e.value(fDepth)); !ok {
		return fmt.Errorf("%w: depth", ErrFormat)
	}
	if e.ts, ok = e.time(); !ok {
		return fmt.Errorf("%w: origin_server_ts", ErrFormat)
	}
	return e.readTexts()
}

// time reads origin_server_ts, of which old rooms hold ones that are not integers.
func (e *Event) time() (int64, bool) {
	v := e.value(fOriginServerTS)
	if n, ok := canonjson.Int(v); ok || e.rules.StrictJSON {
		return n, ok
	}
	if len(v) == 0 || (v[0] != '-' && (v[0] < '0' || v[0] > '9')) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f < -(1<<62) || f > 1<<62 {
		return 0, false
	}
	return int64(f), true
}

// readTexts reads every string: one allocation for their bytes, one for the list of links.
func (e *Event) readTexts() error {
	var (
		stack     [1536]byte
		endsStack [5 + MaxPrevEvents + MaxAuthEvents]uint32
	)
	buf, ends := stack[:0], endsStack[:0] // of each text in buf
	for _, f := range [...]field{fType, fSender, fStateKey, fRoomID, fEventID} {
		var ok bool
		if buf, ok = e.appendText(buf, f); !ok && e.f[f].end != 0 && f != fEventID {
			return fmt.Errorf("%w: %s", ErrFormat, fieldNames[f])
		}
		ends = append(ends, uint32(len(buf)))
	}
	if e.f[fType].end == 0 || e.f[fSender].end == 0 {
		return fmt.Errorf("%w: type or sender", ErrFormat)
	}
	var err error
	if buf, ends, err = e.appendLinks(buf, ends, fPrevEvents, MaxPrevEvents); err != nil {
		return err
	}
	e.prevs = uint8(len(ends) - 5)
	if buf, ends, err = e.appendLinks(buf, ends, fAuthEvents, MaxAuthEvents); err != nil {
		return err
	}
	links := len(ends) - 5
	named := len(buf)
	buf = e.appendRedacts(buf)

	all := string(buf)
	from := uint32(0)
	next := func(i int) string {
		s := all[from:ends[i]]
		from = ends[i]
		return s
	}
	e.typ = next(0)
	e.sender = id.UserID(next(1))
	e.stateKey = next(2)
	e.room = id.RoomID(next(3))
	if given := next(4); e.rules.EventIDs == roomver.EventIDGiven {
		e.id = id.EventID(given)
	}
	e.links = make([]id.EventID, links)
	for i := range e.links {
		e.links[i] = id.EventID(next(5 + i))
	}
	e.redacts = id.EventID(all[named:])
	if e.f[fStateKey].end != 0 {
		e.flags |= flagState
	}
	return nil
}

// appendRedacts appends what a redaction names.
func (e *Event) appendRedacts(dst []byte) []byte {
	if string(e.value(fType)) != `"`+TypeRedaction+`"` {
		return dst
	}
	v := e.value(fRedacts)
	if e.rules.RedactsInContent {
		v, _ = canonjson.Get(e.Content(), "redacts")
	}
	if text, ok := canonjson.AppendText(dst, v); ok {
		return text
	}
	return dst
}

// appendLinks appends the event ids of prev_events or auth_events, and where each of them ends.
func (e *Event) appendLinks(buf []byte, ends []uint32, f field, most int) ([]byte, []uint32, error) {
	list := e.value(f)
	if !canonjson.IsArray(list) {
		return nil, nil, fmt.Errorf("%w: %s", ErrFormat, fieldNames[f])
	}
	n := 0
	for it := canonjson.Walk(list); it.Next(); {
		if n++; n > most {
			return nil, nil, fmt.Errorf("%w: %s", ErrTooMany, fieldNames[f])
		}
		link, ok := it.Value(), true
		if e.rules.LinksWithHashes {
			link, ok = linkOfPair(link)
		}
		from := len(buf)
		if ok {
			buf, ok = canonjson.AppendText(buf, link)
		}
		if size := len(buf) - from; !ok || size < 2 || size > MaxFieldSize || buf[from] != '$' || bytes.IndexByte(buf[from:], 0) >= 0 {
			return nil, nil, fmt.Errorf("%w: %s", ErrFormat, fieldNames[f])
		}
		ends = append(ends, uint32(len(buf)))
	}
	return buf, ends, nil
}

// linkOfPair returns the event id of [id, {hashes}].
func linkOfPair(pair []byte) (link []byte, ok bool) {
	it := canonjson.Walk(pair)
	if !canonjson.IsArray(pair) || !it.Next() {
		return nil, false
	}
	link = it.Value()
	return link, it.Next() && canonjson.IsObject(it.Value()) && !it.Next()
}

// checkFormat checks what read has not.
func (e *Event) checkFormat() error {
	if e.depth < 0 {
		return fmt.Errorf("%w: depth", ErrFormat)
	}
	if !canonjson.IsObject(e.value(fSignatures)) {
		return fmt.Errorf("%w: signatures", ErrFormat)
	}
	given := ""
	if e.rules.EventIDs == roomver.EventIDGiven {
		if given = string(e.id); given == "" {
			return fmt.Errorf("%w: event_id", ErrFormat)
		}
	}
	for _, s := range [...]string{e.typ, e.stateKey, string(e.sender), string(e.room), given} {
		if strings.IndexByte(s, 0) >= 0 { // no database of a homeserver's holds it in a name
			return fmt.Errorf("%w: NUL in %.32q", ErrFormat, s)
		}
		if len(s) <= MaxFieldSize {
			continue
		}
		if e.rules.StrictByteLimits || utf8.RuneCountInString(s) > MaxFieldSize {
			return fmt.Errorf("%w: %.32q…", ErrTooLarge, s)
		}
		e.flags |= flagOverlongField
	}
	return e.checkIDs()
}

func (e *Event) checkIDs() error {
	if e.flags&flagOverlongField != 0 {
		// Kept, as rejected, for other servers have it too; its ids cannot be of legal length.
		if e.sender == "" || e.sender[0] != '@' {
			return fmt.Errorf("%w: sender", ErrFormat)
		}
	} else if _, err := id.ParseUserID(string(e.sender)); err != nil {
		return fmt.Errorf("%w: sender: %w", ErrFormat, err)
	}
	switch {
	case e.createsRoomID():
	case e.room == "":
		return fmt.Errorf("%w: room_id", ErrFormat)
	case e.flags&flagOverlongField != 0:
	default:
		if _, err := id.ParseRoomID(string(e.room)); err != nil {
			return fmt.Errorf("%w: room_id: %w", ErrFormat, err)
		}
	}
	if e.rules.EventIDs != roomver.EventIDGiven {
		return nil
	}
	if e.flags&flagOverlongField == 0 {
		if given, err := id.ParseEventID(string(e.id)); err != nil || given.Server() == "" {
			return fmt.Errorf("%w: event_id", ErrFormat)
		}
	}
	for _, link := range e.links {
		if link == e.id {
			return fmt.Errorf("%w: event names itself", ErrFormat)
		}
	}
	return nil
}

// createsRoomID tells whether the event's hash is its room's id.
func (e *Event) createsRoomID() bool { return e.rules.RoomIDIsHash && e.Is(TypeCreate, "") }
