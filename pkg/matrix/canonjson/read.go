package canonjson

import (
	"bytes"
	"strconv"
)

// Iter walks the members of a canonical object or the elements of a canonical array:
//
//	for it := canonjson.Walk(object); it.Next(); {
//		use(it.Key(), it.Value())
//	}
//
// It trusts its input to be canonical; of other input it makes nothing sensible, but does not panic.
type Iter struct {
	data       []byte
	pos        int
	object     bool
	exhausted  bool
	key, value []byte
}

// Walk begins to walk an object or an array; anything else has no members.
func Walk(data []byte) Iter {
	it := Iter{data: data, pos: 1}
	if len(data) < 2 || (data[0] != '{' && data[0] != '[') {
		it.exhausted = true
		return it
	}
	it.object = data[0] == '{'
	return it
}

// Next goes to the next member or element.
func (it *Iter) Next() bool {
	if it.exhausted || it.pos >= len(it.data) || it.data[it.pos] == '}' || it.data[it.pos] == ']' {
		it.exhausted = true
		return false
	}
	i := it.pos
	if it.object {
		if it.data[i] != '"' {
			it.exhausted = true
			return false
		}
		keyEnd := skipString(it.data, i)
		it.key = it.data[i:keyEnd]
		i = keyEnd + 1
	}
	end := skipValue(it.data, i)
	if i >= end {
		it.exhausted = true
		return false
	}
	it.value = it.data[i:end]
	it.pos = end + 1
	return true
}

// Key returns the member's key with its quotes, as it is written.
func (it *Iter) Key() []byte { return it.key }

// KeyIs tells whether the member's key is key, which must not need escapes.
func (it *Iter) KeyIs(key string) bool {
	return len(it.key) == len(key)+2 && string(it.key[1:len(it.key)-1]) == key
}

// KeyString returns the member's key, unescaped.
func (it *Iter) KeyString() string {
	s, _ := String(it.key)
	return s
}

// Value returns the member's or element's value.
func (it *Iter) Value() []byte { return it.value }

// Index appends where the members of a canonical object are, as AppendIndexed does; none if it is no
// object.
func Index(object []byte, members []Member) []Member {
	if len(object) == 0 || object[0] != '{' {
		return members
	}
	for i := 1; i < len(object) && object[i] == '"'; {
		keyEnd := skipString(object, i)
		end := skipValue(object, keyEnd+1)
		if keyEnd+1 >= end {
			break
		}
		members = append(members, Member{KeyStart: i, KeyEnd: keyEnd, ValueStart: keyEnd + 1, ValueEnd: end})
		i = end + 1
	}
	return members
}

// Get returns the value of a key, which must not need escapes, in a canonical object.
func Get(object []byte, key string) (value []byte, ok bool) {
	if len(object) == 0 || object[0] != '{' {
		return nil, false
	}
	for it := Walk(object); it.Next(); {
		if it.KeyIs(key) {
			return it.value, true
		}
	}
	return nil, false
}

// GetString returns a string member; ok is false if it is missing or no string.
func GetString(object []byte, key string) (s string, ok bool) {
	v, ok := Get(object, key)
	if !ok {
		return "", false
	}
	return String(v)
}

// GetInt returns an integer member; ok is false if it is missing or no integer.
func GetInt(object []byte, key string) (n int64, ok bool) {
	v, ok := Get(object, key)
	if !ok {
		return 0, false
	}
	return Int(v)
}

// GetBool returns a boolean member; ok is false if it is missing or no boolean.
func GetBool(object []byte, key string) (b, ok bool) {
	v, ok := Get(object, key)
	if !ok {
		return false, false
	}
	return Bool(v)
}

// String returns what a string value says, unescaped; ok is false if value is no string.
func String(value []byte) (s string, ok bool) {
	inner, plain, ok := inside(value)
	if !ok || plain {
		return string(inner), ok
	}
	out, ok := AppendText(make([]byte, 0, len(inner)), value)
	return string(out), ok
}

// AppendText appends what a string value says, unescaped; ok is false if value is no string.
func AppendText(dst, value []byte) (text []byte, ok bool) {
	inner, plain, ok := inside(value)
	if !ok || plain {
		return append(dst, inner...), ok
	}
	for len(inner) > 0 {
		if inner[0] == '\\' && (len(inner) < 2 || (inner[1] == 'u' && len(inner) < 6)) {
			return dst, false
		}
		var b byte
		b, inner = nextByte(inner)
		dst = append(dst, b)
	}
	return dst, true
}

// Text returns the bytes between the quotes of a string value that holds no escapes, without copying
// them; ok is false for other values.
func Text(value []byte) (text []byte, ok bool) {
	inner, plain, ok := inside(value)
	return inner, ok && plain
}

// inside returns what stands between the quotes of a string value, and whether it holds no escapes.
func inside(value []byte) (inner []byte, plain, ok bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return nil, false, false
	}
	inner = value[1 : len(value)-1]
	return inner, bytes.IndexByte(inner, '\\') < 0, true
}

// Int returns an integer value; ok is false if value is no integer in the range of int64.
func Int(value []byte) (n int64, ok bool) {
	if len(value) == 0 || len(value) > 20 || (value[0] != '-' && !isDigit(value[0])) {
		return 0, false
	}
	if len(value) > 18 { // may overflow
		n, err := strconv.ParseInt(string(value), 10, 64)
		return n, err == nil
	}
	negative := value[0] == '-'
	if negative {
		value = value[1:]
	}
	for _, b := range value {
		if !isDigit(b) {
			return 0, false
		}
		n = n*10 + int64(b-'0')
	}
	if negative {
		n = -n
	}
	return n, len(value) > 0
}

// Bool returns a boolean value; ok is false if value is none.
func Bool(value []byte) (b, ok bool) {
	switch string(value) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// IsObject tells whether a value is an object.
func IsObject(value []byte) bool { return len(value) > 0 && value[0] == '{' }

// IsArray tells whether a value is an array.
func IsArray(value []byte) bool { return len(value) > 0 && value[0] == '[' }

// IsNull tells whether a value is null.
func IsNull(value []byte) bool { return string(value) == "null" }

// skipString returns where the canonical string at s[i] ends, at most len(s).
func skipString(s []byte, i int) int {
	for i++; i < len(s); {
		n := bytes.IndexByte(s[i:], '"')
		if n < 0 {
			return len(s)
		}
		i += n + 1
		// The quote ends the string unless an odd number of backslashes stands before it.
		back := 0
		for k := i - 2; k >= 0 && s[k] == '\\'; k-- {
			back++
		}
		if back%2 == 0 {
			return i
		}
	}
	return len(s)
}

// skipValue returns where the canonical value at s[i] ends, at most len(s).
func skipValue(s []byte, i int) int {
	if i >= len(s) {
		return len(s)
	}
	switch s[i] {
	case '"':
		return skipString(s, i)
	case '{', '[':
		depth := 0
		for i < len(s) {
			switch s[i] {
			case '"':
				i = skipString(s, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return len(s)
	default:
		for i < len(s) && s[i] != ',' && s[i] != '}' && s[i] != ']' {
			i++
		}
		return i
	}
}
