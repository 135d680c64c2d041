package canonjson

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

// AppendString appends s as a canonical JSON string. Invalid UTF-8 is replaced, as by a decoder of text.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for s != "" {
		i := plainText(s)
		dst = append(dst, s[:i]...)
		if s = s[i:]; s == "" {
			break
		}
		switch b := s[0]; {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < 0x20:
			if short := shortEscape(rune(b)); short != 0 {
				dst = append(dst, '\\', short)
			} else {
				const digits = "0123456789abcdef"
				dst = append(dst, '\\', 'u', '0', '0', digits[b>>4], digits[b&15])
			}
		default:
			r, n := utf8.DecodeRuneInString(s)
			dst = utf8.AppendRune(dst, r)
			s = s[n:]
			continue
		}
		s = s[1:]
	}
	return append(dst, '"')
}

// plainText is plain for strings that may be long runs of what needs no escape.
func plainText(s string) int {
	for i := range len(s) {
		if b := s[i]; b < 0x20 || b >= 0x80 || b == '"' || b == '\\' {
			return i
		}
	}
	return len(s)
}

// AppendInt appends n.
func AppendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// Marshal returns the canonical JSON of a Go value: for documents that this server makes, not for what
// is received, which is never marshalled again.
func Marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	return Canonical(raw, Options{})
}

// Reason returns the error of this package that err stems from, nil if it is another.
func Reason(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return nil
}
