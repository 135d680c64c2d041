// Package thumb makes smaller pictures of pictures: JPEG, PNG, GIF and WebP.
//
// Guarantees: [Probe] says what a picture will take before any of it is decoded, and the caller decides whether that is too much; pictures
// are never made larger; a photograph stands upright; transparency stays. Functions hold nothing between calls and may be called
// concurrently. What is not a picture, or a broken one, is [ErrFormat].
//
// It computes: bytes in, bytes out. It belongs to service/media.
package thumb

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"
)

// ErrFormat says that something is no picture that can be read here.
var ErrFormat = errors.New("not a picture that can be made smaller")

// Spec is what is wanted.
type Spec struct {
	Width, Height int
	// Crop fills the size and cuts off what does not fit; else the whole picture is made to fit into it.
	Crop bool
	// Animated keeps the frames of a GIF.
	Animated bool
}

// quality of JPEGs that are made.
const quality = 85

// Make makes a picture of the wanted size, or of its own if that is smaller. The picture is what info was made of.
func Make(r io.Reader, info Info, want Spec) (data []byte, contentType string, err error) {
	defer func() {
		if p := recover(); p != nil { // a decoder's mistake must not be more than a picture that cannot be read
			err = fmt.Errorf("%w: decoder failed: %v", ErrFormat, p)
		}
	}()
	if want.Animated && info.Animated && info.Format == GIF {
		return makeAnimated(r, info, want)
	}
	src, err := decode(r, info.Format)
	if err != nil {
		return nil, "", err
	}
	from, size := fit(info.Width, info.Height, want)
	from, turned := unturn(from, info), size
	if info.Orientation >= 5 {
		turned = image.Pt(size.Y, size.X)
	}
	out := upright(scale(src, from.Add(src.Bounds().Min), turned), info.Orientation)
	var b bytes.Buffer
	if info.Format == JPEG || info.Format == WebP && out.Opaque() {
		err = jpeg.Encode(&b, out, &jpeg.Options{Quality: quality})
		contentType = "image/jpeg"
	} else {
		err = (&png.Encoder{CompressionLevel: png.DefaultCompression}).Encode(&b, out)
		contentType = "image/png"
	}
	if err != nil {
		return nil, "", fmt.Errorf("encode thumbnail: %w", err)
	}
	return b.Bytes(), contentType, nil
}

func decode(r io.Reader, format Format) (img image.Image, err error) {
	switch format {
	case JPEG:
		img, err = jpeg.Decode(r)
	case PNG:
		img, err = png.Decode(r)
	case GIF:
		img, err = gif.Decode(r)
	case WebP:
		img, err = webp.Decode(r)
	default:
		return nil, ErrFormat
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if img.Bounds().Empty() {
		return nil, fmt.Errorf("%w: it is empty", ErrFormat)
	}
	return img, nil
}

// fit gives which part of a picture is shown, and how large.
func fit(width, height int, want Spec) (from image.Rectangle, size image.Point) {
	from = image.Rect(0, 0, width, height)
	if !want.Crop {
		w, h := want.Width, want.Height
		if w >= width && h >= height {
			return from, image.Pt(width, height)
		}
		if int64(width)*int64(h) > int64(height)*int64(w) { // wider than the box
			h = ceilDiv(int64(height)*int64(w), width)
		} else {
			w = ceilDiv(int64(width)*int64(h), height)
		}
		return from, image.Pt(max(1, w), max(1, h))
	}
	// The largest part that has the wanted shape.
	w, h := width, height
	if int64(width)*int64(want.Height) > int64(height)*int64(want.Width) {
		w = max(1, int(int64(height)*int64(want.Width)/int64(want.Height)))
	} else {
		h = max(1, int(int64(width)*int64(want.Height)/int64(want.Width)))
	}
	x, y := (width-w)/2, (height-h)/2
	return image.Rect(x, y, x+w, y+h), image.Pt(min(w, want.Width), min(h, want.Height))
}

func ceilDiv(a int64, b int) int { return int((a + int64(b) - 1) / int64(b)) }

// unturn gives the part of the picture as it is stored that will be the part from of it when it stands upright.
func unturn(from image.Rectangle, info Info) image.Rectangle {
	w, h := info.Width, info.Height // upright
	r := from
	switch info.Orientation {
	case 2:
		r = image.Rect(w-from.Max.X, from.Min.Y, w-from.Min.X, from.Max.Y)
	case 3:
		r = image.Rect(w-from.Max.X, h-from.Max.Y, w-from.Min.X, h-from.Min.Y)
	case 4:
		r = image.Rect(from.Min.X, h-from.Max.Y, from.Max.X, h-from.Min.Y)
	case 5:
		r = image.Rect(from.Min.Y, from.Min.X, from.Max.Y, from.Max.X)
	case 6:
		r = image.Rect(from.Min.Y, w-from.Max.X, from.Max.Y, w-from.Min.X)
	case 7:
		r = image.Rect(h-from.Max.Y, w-from.Max.X, h-from.Min.Y, w-from.Min.X)
	case 8:
		r = image.Rect(h-from.Max.Y, from.Min.X, h-from.Min.Y, from.Max.X)
	}
	return r
}

// smooth is up to how many pixels a thumbnail is worth the better and slower way of scaling.
const smooth = 320 * 320

// scale makes a picture of a part of another. First each block of pixels that is sure to become less than one is averaged, a few rows at a
// time, so that no second picture of the full size is needed, and nothing is skipped as by a scaler that looks at four pixels only.
func scale(src image.Image, from image.Rectangle, size image.Point) *image.RGBA {
	k := max(1, min(from.Dx()/size.X, from.Dy()/size.Y))
	if k > 1 {
		small := image.NewRGBA(image.Rect(0, 0, max(1, from.Dx()/k), max(1, from.Dy()/k)))
		strip := image.NewRGBA(image.Rect(0, 0, from.Dx(), k))
		for y := range small.Rect.Dy() {
			draw.Draw(strip, strip.Rect, src, image.Pt(from.Min.X, from.Min.Y+y*k), draw.Src)
			average(small.Pix[y*small.Stride:(y+1)*small.Stride], strip, k)
		}
		src, from = small, small.Rect
	}
	out := image.NewRGBA(image.Rectangle{Max: size})
	how := draw.ApproxBiLinear
	switch {
	case from.Size() == size:
		draw.Draw(out, out.Rect, src, from.Min, draw.Src)
		return out
	case size.X*size.Y <= smooth:
		how = draw.CatmullRom
	}
	how.Scale(out, out.Rect, src, from, draw.Src, nil)
	return out
}

// average makes one row of pixels out of a strip that is k high.
func average(row []byte, strip *image.RGBA, k int) {
	n := uint32(k * k)
	for x := range len(row) / 4 {
		var r, g, b, a uint32
		for dy := range k {
			p := strip.Pix[dy*strip.Stride+x*k*4:]
			p = p[:4*k]
			for i := 0; i < len(p); i += 4 {
				r, g, b, a = r+uint32(p[i]), g+uint32(p[i+1]), b+uint32(p[i+2]), a+uint32(p[i+3])
			}
		}
		row[4*x], row[4*x+1], row[4*x+2], row[4*x+3] = byte(r/n), byte(g/n), byte(b/n), byte(a/n)
	}
}

// upright turns a picture as its orientation (of Exif) says.
func upright(src *image.RGBA, orientation int) *image.RGBA {
	if orientation < 2 || orientation > 8 {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if orientation >= 5 {
		out = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			var ox, oy int
			switch orientation {
			case 2:
				ox, oy = w-1-x, y
			case 3:
				ox, oy = w-1-x, h-1-y
			case 4:
				ox, oy = x, h-1-y
			case 5:
				ox, oy = y, x
			case 6:
				ox, oy = h-1-y, x
			case 7:
				ox, oy = h-1-y, w-1-x
			case 8:
				ox, oy = y, w-1-x
			}
			copy(out.Pix[oy*out.Stride+4*ox:][:4], src.Pix[y*src.Stride+4*x:][:4])
		}
	}
	return out
}

// makeAnimated makes each frame of a GIF smaller.
func makeAnimated(r io.Reader, info Info, want Spec) ([]byte, string, error) {
	all, err := gif.DecodeAll(r)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", ErrFormat, err)
	}
	from, size := fit(info.Width, info.Height, want)
	canvas := image.NewRGBA(image.Rect(0, 0, info.Width, info.Height))
	var before *image.RGBA
	out := &gif.GIF{LoopCount: all.LoopCount, Config: image.Config{Width: size.X, Height: size.Y}}
	for i, frame := range all.Image {
		disposal := byte(gif.DisposalNone)
		if i < len(all.Disposal) {
			disposal = all.Disposal[i]
		}
		if disposal == gif.DisposalPrevious {
			if before == nil {
				before = image.NewRGBA(canvas.Rect)
			}
			copy(before.Pix, canvas.Pix)
		}
		draw.Draw(canvas, frame.Rect, frame, frame.Rect.Min, draw.Over)
		palette := withTransparent(frame.Palette)
		small := image.NewPaletted(image.Rectangle{Max: size}, palette)
		draw.FloydSteinberg.Draw(small, small.Rect, scale(canvas, from, size), image.Point{})
		out.Image = append(out.Image, small)
		out.Delay = append(out.Delay, all.Delay[i])
		out.Disposal = append(out.Disposal, gif.DisposalBackground)
		switch disposal {
		case gif.DisposalBackground:
			draw.Draw(canvas, frame.Rect, image.Transparent, image.Point{}, draw.Src)
		case gif.DisposalPrevious:
			copy(canvas.Pix, before.Pix)
		}
		all.Image[i] = nil
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, out); err != nil {
		return nil, "", fmt.Errorf("encode thumbnail: %w", err)
	}
	return b.Bytes(), "image/gif", nil
}

// withTransparent gives a palette that has a transparent colour, since each frame is drawn as a whole.
func withTransparent(p color.Palette) color.Palette {
	for _, c := range p {
		if _, _, _, a := c.RGBA(); a == 0 {
			return p
		}
	}
	const most = 256
	out := append(make(color.Palette, 0, len(p)+1), p...)
	if len(out) == most {
		out = out[:most-1]
	}
	return append(out, color.RGBA{})
}
