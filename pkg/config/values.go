package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a size. As text it is a whole number and a unit: B, KiB, MiB, GiB, TiB, or KB, MB,
// GB, TB for powers of a thousand; without a unit it is bytes.
type Bytes int64

type unit struct {
	name string
	size int64
}

func units() []unit { // largest first, for String
	return []unit{
		{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
	}
}

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	factor := int64(1)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			s, factor = strings.TrimSpace(rest), u.size
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return fmt.Errorf("want a size such as 100MiB, got %q", text)
	}
	if int64(n) > math.MaxInt64/factor {
		return fmt.Errorf("%q is too large", text)
	}
	*b = Bytes(int64(n) * factor)
	return nil
}

// String gives the size in the largest power of 1024 that it is a multiple of.
func (b Bytes) String() string {
	for _, u := range units() {
		if (u.name == "B" || strings.HasSuffix(u.name, "iB")) && int64(b)%u.size == 0 && b != 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return "0B"
}

// Budget is a size, or automatic, which is its zero value.
type Budget struct{ Bytes Bytes }

// Auto tells whether the size is to be found out.
func (b Budget) Auto() bool { return b.Bytes == 0 }

// UnmarshalText reads "auto" or a size.
func (b *Budget) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		b.Bytes = 0
		return nil
	}
	if err := b.Bytes.UnmarshalText(text); err != nil {
		return fmt.Errorf("want auto, or a size such as 2GiB, got %q", text)
	}
	if b.Bytes == 0 {
		return fmt.Errorf("want auto, or a size such as 2GiB, got %q", text)
	}
	return nil
}

// String is the reverse of UnmarshalText.
func (b Budget) String() string {
	if b.Auto() {
		return "auto"
	}
	return b.Bytes.String()
}
