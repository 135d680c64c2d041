package canonjson

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// Append appends the canonical form of src to dst. On error dst is returned unchanged in length.
func Append(dst, src []byte, o Options) ([]byte, error) {
	var c canon
	start := len(dst)
	if !c.all(dst, src, o) {
		return dst[:start], &Error{Reason: c.reason, Offset: c.errorAt}
	}
	return c.dst, nil
}

// AppendIndexed is Append, and appends to members where the top-level members are in what was appended,
// in the order of their keys. If src is not an object no members are appended.
func AppendIndexed(dst, src []byte, o Options, members []Member) ([]byte, []Member, error) {
	var c canon
	start := len(dst)
	if !c.all(dst, src, o) {
		return dst[:start], members, &Error{Reason: c.reason, Offset: c.errorAt}
	}
	if c.moved.n > 0 || c.incomplete {
		return c.dst, Index(c.dst[start:], members), nil
	}
	for i := range c.members.n {
		m := c.members.at(i)
		members = append(members, Member{
			KeyStart: int(m.key) - start, KeyEnd: int(m.keyEnd) - start,
			ValueStart: int(m.value) - start, ValueEnd: int(m.end) - start,
		})
	}
	return c.dst, members, nil
}

// all appends the canonical form of src to dst, in c.dst.
func (c *canon) all(dst, src []byte, o Options) bool {
	c.src, c.dst, c.mode, c.maxDepth = src, dst, o.Mode, o.depth()
	if len(src) > o.size() {
		c.fail(ErrSize, o.size())
		return false
	}
	if !c.run() {
		if !errors.Is(c.reason, errKeepAll) {
			return false
		}
		*c = canon{src: src, dst: dst, mode: o.Mode, maxDepth: o.depth(), keepAll: true}
		if !c.run() {
			return false
		}
	}
	if c.moved.n > 0 {
		c.dst = c.rearrange(c.dst, len(dst))
	}
	return true
}

// A span is a member of an object, by offsets into the output. Offsets are 32 bits: sizes are bounded
// far below.
type span struct {
	key, keyEnd, value, end int32
	// escaped: the key holds a backslash, so that its bytes do not sort as its characters do.
	escaped bool
}

// errKeepAll is not for others to see.
var errKeepAll = errors.New("keep all members")

// A reorder is an object whose members were not in order: its place in the output and its members, in
// order, in canon.saved.
type reorder struct {
	start, end  int32
	first, last int32
}

// canon is one run. What is read is copied lazily: src[mark:pos] is to be appended to dst as it is, so
// that canonical input is copied in one piece.
type canon struct {
	src, dst []byte
	mark     int
	depth    int
	maxDepth int
	mode     Mode

	members stack[span] // of the objects that are open, innermost last
	saved   stack[span]
	moved   stack[reorder]

	// A large object in order needs no note of its members, which would not fit into the stack. One that
	// turns out not to be in order makes the run begin anew with keepAll.
	keepAll    bool
	incomplete bool // some member was not noted

	verifyOnly bool // stop at the first change, write nothing
	changed    bool
	reason     error
	errorAt    int
}

// run canonicalises the whole input. It leaves the members of a top-level object in c.members if
// nothing had to be moved.
func (c *canon) run() bool {
	i := c.space(0)
	i = c.value(i)
	if i < 0 {
		return false
	}
	c.flush(i)
	end := c.space(i)
	if end != len(c.src) {
		c.fail(ErrSyntax, end)
		return false
	}
	c.flush(end)
	return !c.verifyOnly || !c.changed
}

func (c *canon) fail(reason error, at int) int {
	c.reason, c.errorAt = reason, at
	return -1
}

// at is the place in the output of the byte at src[i], for i >= mark.
func (c *canon) at(i int) int32 { return int32(len(c.dst) + i - c.mark) }

func (c *canon) flush(i int) {
	if !c.verifyOnly {
		c.dst = append(c.dst, c.src[c.mark:i]...)
		c.mark = i
	}
}

// replace writes text in the place of src[i:end].
func (c *canon) replace(i, end int, text ...byte) {
	c.changed = true
	if !c.verifyOnly {
		c.flush(i)
		c.dst = append(c.dst, text...)
		c.mark = end
	}
}

// space drops white space and returns where it ends.
func (c *canon) space(i int) int {
	if i >= len(c.src) || c.src[i] > ' ' {
		return i
	}
	start := i
	for i < len(c.src) {
		switch c.src[i] {
		case ' ', '\t', '\n', '\r':
			i++
			continue
		}
		break
	}
	if i > start {
		c.replace(start, i)
	}
	return i
}

func (c *canon) value(i int) int {
	if i >= len(c.src) {
		return c.fail(ErrSyntax, i)
	}
	switch b := c.src[i]; b {
	case '"':
		end, _ := c.str(i)
		return end
	case '{':
		return c.object(i)
	case '[':
		return c.array(i)
	case 't':
		return c.literal(i, "true")
	case 'f':
		return c.literal(i, "false")
	case 'n':
		return c.literal(i, "null")
	default:
		if b == '-' || (b >= '0' && b <= '9') {
			return c.number(i)
		}
		return c.fail(ErrSyntax, i)
	}
}

func (c *canon) literal(i int, text string) int {
	if len(c.src)-i < len(text) || string(c.src[i:i+len(text)]) != text {
		return c.fail(ErrSyntax, i)
	}
	return i + len(text)
}

func (c *canon) array(i int) int {
	if c.depth++; c.depth > c.maxDepth {
		return c.fail(ErrDepth, i)
	}
	i = c.space(i + 1)
	if i < len(c.src) && c.src[i] == ']' {
		c.depth--
		return i + 1
	}
	for {
		if i = c.value(i); i < 0 {
			return i
		}
		i = c.space(i)
		if i >= len(c.src) {
			return c.fail(ErrSyntax, i)
		}
		switch c.src[i] {
		case ',':
			i = c.space(i + 1)
		case ']':
			c.depth--
			return i + 1
		default:
			return c.fail(ErrSyntax, i)
		}
	}
}

func (c *canon) object(i int) int {
	if c.depth++; c.depth > c.maxDepth {
		return c.fail(ErrDepth, i)
	}
	objectStart := c.at(i)
	base := c.members.n
	sorted, missing := true, false
	var previous span
	i = c.space(i + 1)
	if i < len(c.src) && c.src[i] == '}' {
		c.depth--
		return i + 1
	}
	for {
		if i >= len(c.src) || c.src[i] != '"' {
			return c.fail(ErrSyntax, i)
		}
		var m span
		m.key = c.at(i)
		keyAt := i
		i, m.escaped = c.str(i)
		if i < 0 {
			return i
		}
		m.keyEnd = c.at(i)
		if i = c.space(i); i >= len(c.src) || c.src[i] != ':' {
			return c.fail(ErrSyntax, i)
		}
		if sorted && previous.keyEnd > 0 {
			sorted = c.compare(&previous, &m, i) < 0
			switch {
			case sorted:
			case c.verifyOnly:
				return c.fail(ErrDuplicate, keyAt)
			case missing:
				return c.fail(errKeepAll, keyAt)
			}
		}
		i = c.space(i + 1)
		m.value = c.at(i)
		if i = c.value(i); i < 0 {
			return i
		}
		m.end = c.at(i)
		if c.members.n < fixed || c.keepAll || !sorted {
			c.members.push(m)
		} else {
			missing, c.incomplete = true, true
		}
		previous = m
		if i = c.space(i); i >= len(c.src) {
			return c.fail(ErrSyntax, i)
		}
		switch c.src[i] {
		case ',':
			i = c.space(i + 1)
		case '}':
			i++
			c.depth--
			if !sorted && !c.reorder(base, objectStart, i) {
				return -1
			}
			if c.depth > 0 || !sorted {
				c.members.cut(base)
			}
			return i
		default:
			return c.fail(ErrSyntax, i)
		}
	}
}

// key returns the bytes of a key that has been read, without quotes; src is read up to i.
func (c *canon) key(m *span, i int) []byte {
	from, to, n := int(m.key)+1, int(m.keyEnd)-1, len(c.dst)
	if from >= n {
		return c.src[c.mark+from-n : c.mark+to-n]
	}
	if to > n {
		c.flush(i)
	}
	return c.dst[from:to]
}

func (c *canon) compare(a, b *span, i int) int {
	return compareKeys(c.key(a, i), c.key(b, i), a.escaped || b.escaped)
}

func compareKeys(a, b []byte, escaped bool) int {
	if !escaped {
		return bytes.Compare(a, b)
	}
	for len(a) > 0 && len(b) > 0 {
		var x, y byte
		x, a = nextByte(a)
		y, b = nextByte(b)
		if x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// nextByte takes one byte of a canonically escaped string.
func nextByte(s []byte) (byte, []byte) {
	if s[0] != '\\' {
		return s[0], s[1:]
	}
	switch s[1] {
	case 'b':
		return '\b', s[2:]
	case 't':
		return '\t', s[2:]
	case 'n':
		return '\n', s[2:]
	case 'f':
		return '\f', s[2:]
	case 'r':
		return '\r', s[2:]
	case 'u': // canonical form has \u00XX for control characters only
		return unhex(s[4])<<4 | unhex(s[5]), s[6:]
	default:
		return s[1], s[2:]
	}
}

// reorder sorts the members of the object that ends before src[i] and notes that they must be moved.
func (c *canon) reorder(base int, start int32, i int) bool {
	c.changed = true
	c.flush(i)
	var few [fixed]ranked
	order := few[:0]
	for n := base; n < c.members.n; n++ {
		m := c.members.at(n)
		order = append(order, ranked{prefix: prefix(c.dst[m.key+1:m.keyEnd-1], m.escaped), member: int32(n)})
	}
	c.sort(order)
	first := c.saved.n
	for n := range order {
		if n+1 < len(order) && c.compareMembers(order[n], order[n+1]) == 0 {
			if c.mode != Lax {
				c.fail(ErrDuplicate, i)
				return false
			}
			continue // the last one counts
		}
		c.saved.push(*c.members.at(int(order[n].member)))
	}
	c.moved.push(reorder{start: start, end: int32(len(c.dst)), first: int32(first), last: int32(c.saved.n)})
	return true
}

// ranked is a member in the order of its key. Most keys of one object differ in their first bytes, so that most comparisons are of
// two numbers, and what is moved while sorting is small.
type ranked struct {
	prefix uint64 // the first bytes of the key
	member int32  // in canon.members
}

// prefix gives the first eight bytes of a key as a number that sorts as they do.
func prefix(key []byte, escaped bool) (p uint64) {
	if !escaped && len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	for shift := 56; shift >= 0 && len(key) > 0; shift -= 8 {
		b := key[0]
		if escaped {
			b, key = nextByte(key)
		} else {
			key = key[1:]
		}
		p |= uint64(b) << shift
	}
	return p
}

// sort orders by key, members of the same key by place.
func (c *canon) sort(order []ranked) {
	less := func(a, b ranked) int {
		if n := c.compareMembers(a, b); n != 0 {
			return n
		}
		return int(a.member) - int(b.member)
	}
	if len(order) > fixed {
		slices.SortFunc(order, less)
		return
	}
	for i := 1; i < len(order); i++ {
		r, at := order[i], i
		for ; at > 0 && less(r, order[at-1]) < 0; at-- {
			order[at] = order[at-1]
		}
		order[at] = r
	}
}

func (c *canon) compareMembers(a, b ranked) int {
	if a.prefix != b.prefix {
		return cmp.Compare(a.prefix, b.prefix)
	}
	x, y := c.members.at(int(a.member)), c.members.at(int(b.member))
	return compareKeys(c.dst[x.key+1:x.keyEnd-1], c.dst[y.key+1:y.keyEnd-1], x.escaped || y.escaped)
}

// rearrange writes dst[start:] anew with the members of the noted objects in order: once over the bytes,
// however deeply the objects are nested.
func (c *canon) rearrange(dst []byte, start int) []byte {
	var few [fixed]reorder
	moved := c.moved.appendFrom(few[:0], 0)
	slices.SortFunc(moved, func(a, b reorder) int { return int(a.start) - int(b.start) })
	end := len(dst)
	out := c.emit(dst, moved, int32(start), int32(end))
	n := copy(out[start:], out[end:])
	return out[:start+n]
}

// emit appends dst[from:to] with what must be moved in its order.
func (c *canon) emit(dst []byte, moved []reorder, from, to int32) []byte {
	for from < to {
		next, _ := slices.BinarySearchFunc(moved, from, func(r reorder, at int32) int { return int(r.start) - int(at) })
		if next >= len(moved) || moved[next].start >= to {
			return append(dst, dst[from:to]...)
		}
		r := moved[next]
		dst = append(dst, dst[from:r.start]...)
		dst = append(dst, '{')
		for n := r.first; n < r.last; n++ {
			if n > r.first {
				dst = append(dst, ',')
			}
			m := c.saved.at(int(n))
			dst = c.emit(dst, moved, m.key, m.end)
		}
		dst = append(dst, '}')
		from = r.end
	}
	return dst
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain returns the first i at or after i where s holds a quote, a backslash, a control character or a
// byte beyond ASCII; len(s) if there is none.
func plain(s []byte, i int) int {
	for ; i+8 <= len(s); i += 8 {
		x := binary.LittleEndian.Uint64(s[i:])
		// A byte's high bit is set where it is beyond ASCII, below 0x20, a quote, a backslash. A borrow
		// can only set a wrong bit above a right one, and the lowest one is what counts.
		hit := (x | (x - 0x20*ones) | ((x ^ '"'*ones) - ones) | ((x ^ '\\'*ones) - ones)) & highs
		if hit != 0 {
			return i + bits.TrailingZeros64(hit)>>3
		}
	}
	for ; i < len(s); i++ {
		if b := s[i]; b < 0x20 || b >= 0x80 || b == '"' || b == '\\' {
			return i
		}
	}
	return i
}

// str reads the string that begins at src[i], and tells whether its canonical form holds an escape.
func (c *canon) str(i int) (end int, escaped bool) {
	start := i
	i++
	for {
		i = plain(c.src, i)
		if i >= len(c.src) {
			return c.fail(ErrSyntax, start), false
		}
		switch b := c.src[i]; {
		case b == '"':
			return i + 1, escaped
		case b == '\\':
			var esc bool
			if i, esc = c.escape(i); i < 0 {
				return i, false
			}
			escaped = escaped || esc
		case b < 0x20:
			return c.fail(ErrSyntax, i), false
		default:
			for i < len(c.src) && c.src[i] >= 0x80 {
				r, n := utf8.DecodeRune(c.src[i:])
				if r == utf8.RuneError && n == 1 {
					return c.fail(ErrUTF8, i), false
				}
				i += n
			}
		}
	}
}

// escape reads the escape at src[i] and writes its canonical form.
func (c *canon) escape(i int) (end int, escaped bool) {
	if i+1 >= len(c.src) {
		return c.fail(ErrSyntax, i), false
	}
	switch c.src[i+1] {
	case '"', '\\', 'b', 'f', 'n', 'r', 't':
		return i + 2, true
	case '/':
		c.replace(i, i+2, '/')
		return i + 2, false
	case 'u':
		return c.unicodeEscape(i)
	}
	return c.fail(ErrSyntax, i), false
}

func (c *canon) unicodeEscape(i int) (end int, escaped bool) {
	r := hex4(c.src, i+2)
	if r < 0 {
		return c.fail(ErrSyntax, i), false
	}
	end = i + 6
	switch {
	case r >= 0xd800 && r < 0xdc00:
		low := rune(-1)
		if end+1 < len(c.src) && c.src[end] == '\\' && c.src[end+1] == 'u' {
			low = hex4(c.src, end+2)
		}
		if low < 0xdc00 || low > 0xdfff {
			return c.fail(ErrSurrogate, i), false
		}
		r = (r-0xd800)<<10 + (low - 0xdc00) + 0x10000
		end += 6
	case r >= 0xdc00 && r < 0xe000:
		return c.fail(ErrSurrogate, i), false
	case r == '"' || r == '\\':
		c.replace(i, end, '\\', byte(r))
		return end, true
	case r < 0x20:
		if short := shortEscape(r); short != 0 {
			c.replace(i, end, '\\', short)
		} else if d := c.src[i+5]; d >= 'A' && d <= 'F' {
			c.replace(i, end, '\\', 'u', '0', '0', c.src[i+4], d|0x20)
		}
		return end, true
	}
	var text [utf8.UTFMax]byte
	c.replace(i, end, text[:utf8.EncodeRune(text[:], r)]...)
	return end, false
}

func shortEscape(r rune) byte {
	switch r {
	case '\b':
		return 'b'
	case '\t':
		return 't'
	case '\n':
		return 'n'
	case '\f':
		return 'f'
	case '\r':
		return 'r'
	}
	return 0
}

// hex4 reads four hexadecimal digits; -1 if they are not there.
func hex4(s []byte, i int) rune {
	if i+4 > len(s) {
		return -1
	}
	var r rune
	for _, b := range s[i : i+4] {
		if l := b | 0x20; (b < '0' || b > '9') && (l < 'a' || l > 'f') {
			return -1
		}
		r = r<<4 | rune(unhex(b))
	}
	return r
}

func unhex(b byte) byte {
	if b <= '9' {
		return b - '0'
	}
	return b | 0x20 - 'a' + 10
}
