package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
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

// Rate is an allowance: a burst that is there at once, and how fast it is refilled. Its zero value is no limit.
type Rate struct {
	// Count is how many come back in the time Per.
	Count float64
	Per   time.Duration
	// Burst is how many can be had at once.
	Burst int64
}

type period struct {
	name string
	time time.Duration
}

func periods() []period { return []period{{"s", time.Second}, {"min", time.Minute}, {"h", time.Hour}} }

// Limited tells whether there is a limit.
func (r Rate) Limited() bool { return r != Rate{} }

// PerSecond is how many come back in a second.
func (r Rate) PerSecond() float64 { return r.Count / r.Per.Seconds() }

// UnmarshalText reads "none", or an allowance such as "10/s burst 60".
func (r *Rate) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	if s == "none" {
		*r = Rate{}
		return nil
	}
	bad := fmt.Errorf("want none, or an allowance such as 10/s burst 60, got %q", text)
	pace, burst, ok := strings.Cut(s, " burst ")
	count, per, slash := strings.Cut(strings.TrimSpace(pace), "/")
	if !ok || !slash {
		return bad
	}
	n, err := strconv.ParseFloat(count, 64)
	if err != nil || !(n > 0 && n <= maxRate) { // so that NaN fails too
		return bad
	}
	most, err := strconv.ParseInt(strings.TrimSpace(burst), 10, 64)
	if err != nil || most < 1 || most > maxRate {
		return bad
	}
	for _, p := range periods() {
		if per == p.name {
			*r = Rate{Count: n, Per: p.time, Burst: most}
			return nil
		}
	}
	return bad
}

// maxRate is more than anybody can ask for.
const maxRate = 1_000_000

// String is the reverse of UnmarshalText.
func (r Rate) String() string {
	for _, p := range periods() {
		if r.Per == p.time {
			return fmt.Sprintf("%s/%s burst %d", strconv.FormatFloat(r.Count, 'f', -1, 64), p.name, r.Burst)
		}
	}
	return "none"
}

// ThumbnailSize is a size of thumbnails. As text it is a width, a height, and how a picture comes to fit: "96x96 crop", "640x480 scale".
type ThumbnailSize struct {
	Width, Height int
	Crop          bool
}

// maxThumbnail is the longest side of a configured size.
const maxThumbnail = 4096

// defaultThumbnails are those that the specification names.
func defaultThumbnails() []ThumbnailSize {
	return []ThumbnailSize{{32, 32, true}, {96, 96, true}, {320, 240, false}, {640, 480, false}, {800, 600, false}}
}

// UnmarshalText reads a size.
func (t *ThumbnailSize) UnmarshalText(text []byte) error {
	bad := fmt.Errorf("want a size such as 96x96 crop or 640x480 scale, got %q", text)
	size, how, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
	w, h, cross := strings.Cut(size, "x")
	width, werr := strconv.Atoi(w)
	height, herr := strconv.Atoi(h)
	if !ok || !cross || werr != nil || herr != nil || width < 1 || height < 1 || width > maxThumbnail || height > maxThumbnail {
		return bad
	}
	if how != "crop" && how != "scale" {
		return bad
	}
	*t = ThumbnailSize{width, height, how == "crop"}
	return nil
}

// String is the reverse of UnmarshalText.
func (t ThumbnailSize) String() string {
	how := "scale"
	if t.Crop {
		how = "crop"
	}
	return fmt.Sprintf("%dx%d %s", t.Width, t.Height, how)
}
