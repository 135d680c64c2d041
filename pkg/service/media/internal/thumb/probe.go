package thumb

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"image/color"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// Format is a format of pictures, by its media type.
type Format string

// The formats that can be read.
const (
	JPEG Format = "image/jpeg"
	PNG  Format = "image/png"
	GIF  Format = "image/gif"
	WebP Format = "image/webp"
)

// Info is what is known of a picture before it is decoded.
type Info struct {
	Format Format
	// Width and Height are those of the picture when it stands upright.
	Width, Height int
	Animated      bool
	// Orientation is how it is to be turned, as Exif counts: from 1, which is not at all, to 8.
	Orientation int
	// Frames are how many pictures there are; Area counts the pixels of all of them.
	Frames int
	Area   int64
	// perPixel is how many bytes the decoder needs for a pixel.
	perPixel float64
}

// Pixels are how many it shows.
func (i Info) Pixels() int64 { return int64(i.Width) * int64(i.Height) }

// Memory is about what it takes to make it smaller.
func (i Info) Memory(animated bool) int64 {
	if animated && i.Animated && i.Format == GIF {
		return i.Area + 12*i.Pixels() // all frames, the picture that they add up to, the one before, and what is made
	}
	return int64(float64(i.Pixels())*i.perPixel) + 1<<20
}

// headLength is enough for all that formats have before their pixels, in files that were not made to be odd.
const headLength = 64 << 10

// Probe reads what stands at the beginning of a picture; of a GIF, all of it.
func Probe(r io.Reader) (Info, error) {
	b := bufio.NewReaderSize(r, headLength)
	head, err := b.Peek(12)
	if err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("read the picture: %w", err)
	}
	var info Info
	switch {
	case len(head) < 12:
		return Info{}, ErrFormat
	case head[0] == 0xff && head[1] == 0xd8 && head[2] == 0xff:
		info, err = probeJPEG(b)
	case string(head[:8]) == "\x89PNG\r\n\x1a\n":
		info, err = probePNG(b)
	case string(head[:6]) == "GIF87a", string(head[:6]) == "GIF89a":
		info, err = probeGIF(b)
	case string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP":
		info, err = probeWebP(b)
	default:
		return Info{}, ErrFormat
	}
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if info.Width <= 0 || info.Height <= 0 {
		return Info{}, fmt.Errorf("%w: it is empty", ErrFormat)
	}
	if info.Orientation == 0 {
		info.Orientation = 1
	}
	if info.Orientation >= 5 {
		info.Width, info.Height = info.Height, info.Width
	}
	if info.Frames == 0 {
		info.Frames, info.Area = 1, info.Pixels()
	}
	return info, nil
}

func probePNG(b *bufio.Reader) (Info, error) {
	info := Info{Format: PNG, perPixel: 4}
	head, err := b.Peek(headLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return info, err
	}
	for at := 8; at+12 <= len(head); { // chunks before the pixels
		n, kind := int(binary.BigEndian.Uint32(head[at:])), string(head[at+4:at+8])
		if kind == "IDAT" || n < 0 || n > len(head) {
			break
		}
		info.Animated = info.Animated || kind == "acTL"
		at += 12 + n
	}
	c, err := png.DecodeConfig(b)
	if err != nil {
		return info, err
	}
	switch c.ColorModel {
	case color.RGBA64Model, color.NRGBA64Model:
		info.perPixel = 8
	}
	info.perPixel++ // what is interlaced is decoded in passes
	info.Width, info.Height = c.Width, c.Height
	return info, nil
}

func probeWebP(b *bufio.Reader) (Info, error) {
	info := Info{Format: WebP, perPixel: 8}
	head, err := b.Peek(30)
	if err != nil {
		return info, err
	}
	if string(head[12:16]) == "VP8X" {
		const animation = 1 << 1
		info.Animated = head[20]&animation != 0
		info.Width = 1 + int(head[24]) + int(head[25])<<8 + int(head[26])<<16
		info.Height = 1 + int(head[27]) + int(head[28])<<8 + int(head[29])<<16
		return info, nil
	}
	c, err := webp.DecodeConfig(b)
	info.Width, info.Height = c.Width, c.Height
	return info, err
}

// errTruncated says that a picture ends where it should not.
var errTruncated = errors.New("it is cut short")

// probeGIF reads through the blocks of a GIF.
func probeGIF(b *bufio.Reader) (Info, error) {
	info := Info{Format: GIF, perPixel: 5}
	var head [13]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return info, errTruncated
	}
	info.Width, info.Height = int(binary.LittleEndian.Uint16(head[6:])), int(binary.LittleEndian.Uint16(head[8:]))
	if err := skipColours(b, head[10]); err != nil {
		return info, err
	}
	for {
		kind, err := b.ReadByte()
		if err != nil || kind == 0x3b { // also browsers show what is there of one that is cut short
			break
		}
		switch kind {
		case 0x21:
			if _, err := b.ReadByte(); err != nil {
				return info, errTruncated
			}
		case 0x2c:
			var d [9]byte
			if _, err := io.ReadFull(b, d[:]); err != nil {
				return info, errTruncated
			}
			info.Frames++
			info.Area += int64(binary.LittleEndian.Uint16(d[4:])) * int64(binary.LittleEndian.Uint16(d[6:]))
			if err := skipColours(b, d[8]); err != nil {
				return info, err
			}
			if _, err := b.ReadByte(); err != nil {
				return info, errTruncated
			}
		default:
			return info, errors.New("unknown block")
		}
		if err := skipBlocks(b); err != nil {
			return info, err
		}
	}
	info.Animated = info.Frames > 1
	if info.Frames == 0 {
		return info, errTruncated
	}
	return info, nil
}

func skipColours(b *bufio.Reader, flags byte) error {
	if flags&0x80 == 0 {
		return nil
	}
	if _, err := b.Discard(3 << (1 + flags&7)); err != nil {
		return errTruncated
	}
	return nil
}

func skipBlocks(b *bufio.Reader) error {
	for {
		n, err := b.ReadByte()
		if err != nil {
			return errTruncated
		}
		if n == 0 {
			return nil
		}
		if _, err := b.Discard(int(n)); err != nil {
			return errTruncated
		}
	}
}

// probeJPEG reads the markers up to the frame's header.
func probeJPEG(b *bufio.Reader) (Info, error) {
	info := Info{Format: JPEG}
	if _, err := b.Discard(2); err != nil {
		return info, errTruncated
	}
	for {
		marker, err := nextMarker(b)
		if err != nil {
			return info, err
		}
		if marker == 0x01 || marker >= 0xd0 && marker <= 0xd8 { // they have no length
			continue
		}
		var l [2]byte
		if _, err := io.ReadFull(b, l[:]); err != nil {
			return info, errTruncated
		}
		length := int(binary.BigEndian.Uint16(l[:])) - 2
		switch {
		case length < 0:
			return info, errors.New("bad marker")
		case marker == 0xd9, marker == 0xda:
			return info, errors.New("no frame")
		case marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc:
			return info, probeFrame(b, &info, marker, length)
		case marker == 0xe1 && info.Orientation == 0:
			segment := make([]byte, length)
			if _, err := io.ReadFull(b, segment); err != nil {
				return info, errTruncated
			}
			info.Orientation = orientation(segment)
		default:
			if _, err := b.Discard(length); err != nil {
				return info, errTruncated
			}
		}
	}
}

func nextMarker(b *bufio.Reader) (byte, error) {
	for {
		c, err := b.ReadByte()
		if err != nil {
			return 0, errTruncated
		}
		for c == 0xff {
			if c, err = b.ReadByte(); err != nil {
				return 0, errTruncated
			}
			if c != 0xff && c != 0 {
				return c, nil
			}
		}
	}
}

// probeFrame reads how large a JPEG is, and how much its decoder will hold: a byte for each sample, and if it comes in several scans, four
// more.
func probeFrame(b *bufio.Reader, info *Info, marker byte, length int) error {
	if length < 6 {
		return errors.New("bad frame")
	}
	d := make([]byte, length)
	if _, err := io.ReadFull(b, d); err != nil {
		return errTruncated
	}
	info.Height, info.Width = int(binary.BigEndian.Uint16(d[1:])), int(binary.BigEndian.Uint16(d[3:]))
	n := int(d[5])
	if n == 0 || n > 4 || len(d) < 6+3*n {
		return errors.New("bad frame")
	}
	var sum, most int
	for i := range n {
		f := d[6+3*i+1]
		area := int(f>>4) * int(f&15)
		sum, most = sum+area, max(most, area)
	}
	if most == 0 {
		return errors.New("bad frame")
	}
	info.perPixel = float64(sum) / float64(most)
	if marker != 0xc0 && marker != 0xc1 {
		info.perPixel *= 5
	}
	return nil
}

// orientation finds the tag of that name in an Exif segment, 1 if there is none.
func orientation(b []byte) int {
	if len(b) < 14 || string(b[:6]) != "Exif\x00\x00" {
		return 1
	}
	b = b[6:]
	var order binary.ByteOrder = binary.BigEndian
	if string(b[:2]) == "II" {
		order = binary.LittleEndian
	}
	at := int64(order.Uint32(b[4:]))
	if at < 8 || at+2 > int64(len(b)) {
		return 1
	}
	n := int(order.Uint16(b[at:]))
	at += 2
	for range n {
		if at+12 > int64(len(b)) {
			return 1
		}
		if order.Uint16(b[at:]) == 0x0112 {
			if v := int(order.Uint16(b[at+8:])); v >= 1 && v <= 8 {
				return v
			}
			return 1
		}
		at += 12
	}
	return 1
}
