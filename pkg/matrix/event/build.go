package event

import (
	"encoding/base64"
	"fmt"

	"github.com/heddle-im/heddle/pkg/matrix/canonjson"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
	"github.com/heddle-im/heddle/pkg/matrix/signing"
)

// A Proto is what an event is made of. For every room version the same members are set; what the version
// wants elsewhere, or not at all, Build sees to.
type Proto struct {
	// RoomID is left empty, and ignored, for a create event whose room id is its hash.
	RoomID   id.RoomID
	Type     string
	StateKey *string
	Sender   id.UserID
	// Content is a JSON object; nil means an empty one.
	Content        []byte
	PrevEvents     []id.EventID
	AuthEvents     []id.EventID
	Depth          int64
	OriginServerTS int64
	// Redacts is the target of an m.room.redaction.
	Redacts id.EventID
	// EventID is needed in room versions 1 and 2 only.
	EventID id.EventID
	// LinkHashes are the reference hashes of prev and auth events, for room versions 1 and 2 only.
	LinkHashes map[id.EventID]Hash
}

// Build makes an event: checked, hashed and signed. It is held to canonical JSON's limits and to byte
// limits in every room version.
func Build(rules *roomver.Rules, p *Proto, server id.ServerName, key signing.Key) (*Event, error) {
	e, err := assemble(rules, p, server, key.ID())
	if err != nil {
		return nil, fmt.Errorf("build event: %w", err)
	}
	if len(e.json) > MaxSize {
		return nil, fmt.Errorf("build event: %w", ErrTooLarge)
	}
	// The hash and the signature are written over placeholders of their length: neither covers itself.
	hash := e.ContentHash()
	text := e.json[e.f[fHashes].start:e.f[fHashes].end]
	base64.RawStdEncoding.Encode(text[len(`{"sha256":"`):], hash[:])

	var stack [scratch]byte
	signature := key.Sign(e.appendRedacted(stack[:0], false))
	text = e.json[e.f[fSignatures].start:e.f[fSignatures].end]
	base64.RawStdEncoding.Encode(text[len(text)-86-len(`"}}`):], signature)

	if err := e.identify(""); err != nil {
		return nil, fmt.Errorf("build event: %w", err)
	}
	return e, nil
}

const (
	noHash      = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	noSignature = noHash + noHash
)

// assemble writes the event with placeholders for hash and signature and reads it back.
func assemble(rules *roomver.Rules, p *Proto, server id.ServerName, keyID id.KeyID) (*Event, error) {
	content, err := p.content(rules)
	if err != nil {
		return nil, err
	}
	if len(content) > MaxSize {
		return nil, ErrTooLarge
	}
	buf := p.append(make([]byte, 0, len(content)+1024), rules, content, func(buf []byte, f field) []byte {
		if f == fHashes {
			return append(buf, `{"sha256":"`+noHash+`"}`...)
		}
		buf = append(buf, '{')
		buf = canonjson.AppendString(buf, string(server))
		buf = append(buf, ':', '{')
		buf = canonjson.AppendString(buf, string(keyID))
		return append(buf, `:"`+noSignature+`"}}`...)
	})
	e := &Event{rules: rules, json: buf}
	var stack [24]canonjson.Member
	if err := e.place(canonjson.Index(buf, stack[:0]), true); err != nil {
		return nil, err
	}
	if err := e.read(); err != nil {
		return nil, err
	}
	if err := e.checkFormat(); err != nil {
		return nil, err
	}
	if e.OverlongField() {
		return nil, ErrTooLarge
	}
	if !canonjson.IsCanonical(buf, canonjson.Options{}) {
		return nil, fmt.Errorf("%w: not canonical", ErrFormat) // a number out of range, invalid UTF-8
	}
	return e, nil
}

// content returns the canonical content, with redacts where the room version has it there.
func (p *Proto) content(rules *roomver.Rules) ([]byte, error) {
	content := p.Content
	if len(content) == 0 {
		content = []byte("{}")
	}
	c, err := canonjson.Canonical(content, canonjson.Options{})
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if !canonjson.IsObject(c) {
		return nil, fmt.Errorf("%w: content", ErrFormat)
	}
	if p.Redacts == "" || !rules.RedactsInContent {
		return c, nil
	}
	return withMember(c, "redacts", string(p.Redacts)), nil
}

// withMember sets a string member, whose key needs no escapes, of a canonical object.
func withMember(object []byte, key, value string) []byte {
	out := make([]byte, 0, len(object)+len(key)+len(value)+8)
	out = append(out, '{')
	done := false
	set := func() {
		out = canonjson.AppendString(out, key)
		out = append(out, ':')
		out = canonjson.AppendString(out, value)
		done = true
	}
	for it := canonjson.Walk(object); it.Next(); {
		is := it.KeyIs(key)
		if !done && (is || it.KeyString() > key) {
			if len(out) > 1 {
				out = append(out, ',')
			}
			set()
		}
		if is {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, it.Key()...)
		out = append(out, ':')
		out = append(out, it.Value()...)
	}
	if !done {
		if len(out) > 1 {
			out = append(out, ',')
		}
		set()
	}
	return append(out, '}')
}

// AppendTemplate appends the event without hashes and signatures: the answer to make_join and its like,
// which the other server completes and signs.
func (p *Proto) AppendTemplate(dst []byte, rules *roomver.Rules) ([]byte, error) {
	content, err := p.content(rules)
	if err != nil {
		return dst, fmt.Errorf("event template: %w", err)
	}
	return p.append(dst, rules, content, nil), nil
}

// append writes the members in canonical order; seal writes hashes and signatures, if not nil.
func (p *Proto) append(dst []byte, rules *roomver.Rules, content []byte, seal func([]byte, field) []byte) []byte {
	createsRoomID := rules.RoomIDIsHash && p.Type == TypeCreate && p.StateKey != nil && *p.StateKey == ""
	dst = append(dst, '{')
	for f := range numFields {
		before := len(dst)
		if dst[before-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, fieldNames[f]...)
		dst = append(dst, '"', ':')
		switch {
		case f == fAuthEvents:
			dst = p.appendLinks(dst, rules, p.AuthEvents)
		case f == fContent:
			dst = append(dst, content...)
		case f == fDepth:
			dst = canonjson.AppendInt(dst, p.Depth)
		case f == fEventID && rules.EventIDs == roomver.EventIDGiven && p.EventID != "":
			dst = canonjson.AppendString(dst, string(p.EventID))
		case (f == fHashes || f == fSignatures) && seal != nil:
			dst = seal(dst, f)
		case f == fOriginServerTS:
			dst = canonjson.AppendInt(dst, p.OriginServerTS)
		case f == fPrevEvents:
			dst = p.appendLinks(dst, rules, p.PrevEvents)
		case f == fRedacts && p.Redacts != "" && !rules.RedactsInContent:
			dst = canonjson.AppendString(dst, string(p.Redacts))
		case f == fRoomID && !createsRoomID:
			dst = canonjson.AppendString(dst, string(p.RoomID))
		case f == fSender:
			dst = canonjson.AppendString(dst, string(p.Sender))
		case f == fStateKey && p.StateKey != nil:
			dst = canonjson.AppendString(dst, *p.StateKey)
		case f == fType:
			dst = canonjson.AppendString(dst, p.Type)
		default:
			dst = dst[:before]
		}
	}
	return append(dst, '}')
}

func (p *Proto) appendLinks(dst []byte, rules *roomver.Rules, links []id.EventID) []byte {
	dst = append(dst, '[')
	for i, link := range links {
		if i > 0 {
			dst = append(dst, ',')
		}
		if !rules.LinksWithHashes {
			dst = canonjson.AppendString(dst, string(link))
			continue
		}
		dst = append(dst, '[')
		dst = canonjson.AppendString(dst, string(link))
		dst = append(dst, ',', '{')
		if h, ok := p.LinkHashes[link]; ok {
			dst = append(dst, `"sha256":"`...)
			dst = base64.RawStdEncoding.AppendEncode(dst, h[:])
			dst = append(dst, '"')
		}
		dst = append(dst, '}', ']')
	}
	return append(dst, ']')
}

// ParseTemplate reads what AppendTemplate wrote elsewhere: the event that another server proposes in its
// answer to make_join and its like. Unknown members, hashes and signatures are left behind, and the time may be
// missing, for some servers leave it out. The caller
// checks that it is the event that was asked for before it builds it.
func ParseTemplate(rules *roomver.Rules, data []byte) (*Proto, error) {
	if len(data) > maxRaw {
		return nil, ErrTooLarge
	}
	buf, err := canonjson.Canonical(data, canonjson.Options{})
	if err != nil {
		return nil, fmt.Errorf("event template: %w", err)
	}
	e := &Event{rules: rules, json: buf}
	var stack [24]canonjson.Member
	if err := e.place(canonjson.Index(buf, stack[:0]), true); err != nil {
		return nil, err
	}
	if e.f[fDepth].end == 0 {
		return nil, fmt.Errorf("%w: depth", ErrFormat)
	}
	if e.f[fOriginServerTS].end == 0 {
		return ParseTemplate(rules, append([]byte(`{"origin_server_ts":0,`), buf[1:]...))
	}
	if err := e.read(); err != nil {
		return nil, err
	}
	p := &Proto{
		RoomID: e.room, Type: e.typ, Sender: e.sender, Content: e.Content(),
		PrevEvents: e.PrevEvents(), AuthEvents: e.AuthEvents(),
		Depth: e.depth, OriginServerTS: e.ts, Redacts: e.redacts,
	}
	if key, ok := e.StateKey(); ok {
		p.StateKey = &key
	}
	if rules.LinksWithHashes {
		p.LinkHashes = e.linkHashes()
	}
	return p, nil
}

func (e *Event) linkHashes() map[id.EventID]Hash {
	hashes := make(map[id.EventID]Hash, len(e.links))
	for _, f := range [...]field{fPrevEvents, fAuthEvents} {
		for it := canonjson.Walk(e.value(f)); it.Next(); {
			pair := canonjson.Walk(it.Value())
			pair.Next()
			link, _ := canonjson.String(pair.Value())
			pair.Next()
			text, ok := canonjson.GetString(pair.Value(), "sha256")
			if b, err := signing.DecodeBase64(text); ok && err == nil && len(b) == len(Hash{}) {
				hashes[id.EventID(link)] = Hash(b)
			}
		}
	}
	return hashes
}
