package thumb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"testing"

	"github.com/stretchr/testify/require"
)

// quarters is a picture of four colours, by which it is seen how it was turned and cut.
func quarters(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{255, 0, 0, 255}
			switch {
			case x >= w/2 && y < h/2:
				c = color.NRGBA{0, 255, 0, 255}
			case x < w/2 && y >= h/2:
				c = color.NRGBA{0, 0, 255, 255}
			case x >= w/2 && y >= h/2:
				c = color.NRGBA{255, 255, 255, 255}
			}
			m.SetNRGBA(x, y, c)
		}
	}
	return m
}

func asPNG(t testing.TB, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	return b.Bytes()
}

func asJPEG(t testing.TB, m image.Image, orientation int) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}))
	if orientation == 0 {
		return b.Bytes()
	}
	exif := []byte("Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00")
	exif = append(exif, byte(orientation), 0, 0, 0, 0, 0, 0)
	segment := append([]byte{0xff, 0xd8, 0xff, 0xe1}, binary.BigEndian.AppendUint16(nil, uint16(len(exif)+2))...)
	return append(append(segment, exif...), b.Bytes()[2:]...)
}

func probed(t testing.TB, data []byte) Info {
	t.Helper()
	info, err := Probe(bytes.NewReader(data))
	require.NoError(t, err)
	return info
}

func made(t testing.TB, data []byte, want Spec) (image.Image, string) {
	t.Helper()
	out, kind, err := Make(bytes.NewReader(data), probed(t, data), want)
	require.NoError(t, err)
	m, format, err := image.Decode(bytes.NewReader(out))
	require.NoError(t, err)
	require.Equal(t, kind, "image/"+format)
	return m, kind
}

// near tells whether a pixel has a colour, about.
func near(m image.Image, x, y int, want color.NRGBA) bool {
	got := color.NRGBAModel.Convert(m.At(m.Bounds().Min.X+x, m.Bounds().Min.Y+y)).(color.NRGBA)
	off := func(a, b uint8) bool { return int(a)-int(b) > 40 || int(b)-int(a) > 40 }
	return !off(got.R, want.R) && !off(got.G, want.G) && !off(got.B, want.B) && !off(got.A, want.A)
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		w, h int
		want Spec
		size image.Point
	}{
		{1000, 500, Spec{Width: 320, Height: 240}, image.Pt(320, 160)},
		{500, 1000, Spec{Width: 320, Height: 240}, image.Pt(120, 240)},
		{1000, 1000, Spec{Width: 320, Height: 240}, image.Pt(240, 240)},
		{1000, 500, Spec{Width: 96, Height: 96, Crop: true}, image.Pt(96, 96)},
		{100, 1000, Spec{Width: 200, Height: 100, Crop: true}, image.Pt(100, 50)},
		{100, 50, Spec{Width: 320, Height: 240}, image.Pt(100, 50)},
		{1, 3000, Spec{Width: 32, Height: 32}, image.Pt(1, 32)},
		{3000, 1, Spec{Width: 32, Height: 32, Crop: true}, image.Pt(1, 1)},
		{333, 777, Spec{Width: 640, Height: 480}, image.Pt(206, 480)},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			m, kind := made(t, asPNG(t, quarters(c.w, c.h)), c.want)
			require.Equal(t, c.size, m.Bounds().Size())
			require.Equal(t, "image/png", kind)
		})
	}
}

func TestColoursAndCut(t *testing.T) {
	m, _ := made(t, asPNG(t, quarters(1000, 500)), Spec{Width: 40, Height: 40, Crop: true})
	require.True(t, near(m, 5, 5, color.NRGBA{255, 0, 0, 255}))
	require.True(t, near(m, 35, 5, color.NRGBA{0, 255, 0, 255}))
	require.True(t, near(m, 5, 35, color.NRGBA{0, 0, 255, 255}))
	require.True(t, near(m, 35, 35, color.NRGBA{255, 255, 255, 255}))
}

// Whichever way a camera was held, the picture stands upright.
func TestOrientation(t *testing.T) {
	for o := 1; o <= 8; o++ {
		// Stored so that turning it by o gives the picture.
		inverse := o
		switch o {
		case 6:
			inverse = 8
		case 8:
			inverse = 6
		}
		rgba := image.NewRGBA(image.Rect(0, 0, 400, 200))
		src := quarters(400, 200)
		for i := 0; i < len(src.Pix); i += 4 {
			copy(rgba.Pix[i:i+4], src.Pix[i:i+4])
		}
		stored := asJPEG(t, upright(rgba, inverse), o)
		info := probed(t, stored)
		require.Equal(t, o, info.Orientation)
		require.Equal(t, image.Pt(400, 200), image.Pt(info.Width, info.Height), o)
		for _, want := range []Spec{{Width: 100, Height: 100}, {Width: 40, Height: 80, Crop: true}} {
			m, kind := made(t, stored, want)
			require.Equal(t, "image/jpeg", kind)
			b := m.Bounds()
			if want.Crop {
				require.Equal(t, image.Pt(40, 80), b.Size(), o)
			} else {
				require.Equal(t, image.Pt(100, 50), b.Size(), o)
			}
			require.True(t, near(m, 5, 5, color.NRGBA{255, 0, 0, 255}), o)
			require.True(t, near(m, b.Dx()-5, 5, color.NRGBA{0, 255, 0, 255}), o)
			require.True(t, near(m, 5, b.Dy()-5, color.NRGBA{0, 0, 255, 255}), o)
			require.True(t, near(m, b.Dx()-5, b.Dy()-5, color.NRGBA{255, 255, 255, 255}), o)
		}
	}
}

func TestTransparencyStays(t *testing.T) {
	src := image.NewNRGBA(image.Rect(0, 0, 400, 400))
	for y := range 200 {
		for x := range 400 {
			src.SetNRGBA(x, y, color.NRGBA{0, 0, 255, 255})
		}
	}
	m, kind := made(t, asPNG(t, src), Spec{Width: 100, Height: 100})
	require.Equal(t, "image/png", kind)
	require.True(t, near(m, 50, 20, color.NRGBA{0, 0, 255, 255}))
	_, _, _, a := m.At(50, 80).RGBA()
	require.Zero(t, a)
}

func animation(t testing.TB, w, h, frames int) []byte {
	t.Helper()
	g := &gif.GIF{Config: image.Config{Width: w, Height: h}}
	p := color.Palette{color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{0, 0, 255, 255}}
	for i := range frames {
		f := image.NewPaletted(image.Rect(0, 0, w, h), p)
		for j := range f.Pix {
			f.Pix[j] = uint8(i % 3)
		}
		g.Image, g.Delay, g.Disposal = append(g.Image, f), append(g.Delay, 10+i), append(g.Disposal, gif.DisposalNone)
	}
	var b bytes.Buffer
	require.NoError(t, gif.EncodeAll(&b, g))
	return b.Bytes()
}

func TestAnimation(t *testing.T) {
	data := animation(t, 300, 150, 5)
	info := probed(t, data)
	require.Equal(t, 5, info.Frames)
	require.True(t, info.Animated)
	require.EqualValues(t, 5*300*150, info.Area)

	out, kind, err := Make(bytes.NewReader(data), info, Spec{Width: 100, Height: 100, Animated: true})
	require.NoError(t, err)
	require.Equal(t, "image/gif", kind)
	g, err := gif.DecodeAll(bytes.NewReader(out))
	require.NoError(t, err)
	require.Len(t, g.Image, 5)
	require.Equal(t, []int{10, 11, 12, 13, 14}, g.Delay)
	require.Equal(t, image.Pt(100, 50), g.Image[0].Bounds().Size())
	for i, c := range []color.NRGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}} {
		require.True(t, near(g.Image[i], 50, 25, c), i)
	}

	m, kind := made(t, data, Spec{Width: 100, Height: 100})
	require.Equal(t, "image/png", kind)
	require.True(t, near(m, 50, 25, color.NRGBA{255, 0, 0, 255}))
}

// What a picture takes is known before it is decoded.
func TestProbe(t *testing.T) {
	huge := asPNG(t, image.NewPaletted(image.Rect(0, 0, 20000, 20000), color.Palette{color.Black, color.White}))
	require.Less(t, len(huge), 1<<20)
	info := probed(t, huge)
	require.EqualValues(t, 400_000_000, info.Pixels())
	require.Greater(t, info.Memory(false), int64(400_000_000))

	wide := probed(t, asPNG(t, image.NewNRGBA64(image.Rect(0, 0, 100, 100))))
	require.Greater(t, wide.Memory(false), probed(t, asPNG(t, image.NewNRGBA(image.Rect(0, 0, 100, 100)))).Memory(false))

	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("Hello, this is a text."), "svg": []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`),
		"cut JPEG": {0xff, 0xd8, 0xff, 0xe0, 0, 16, 'J', 'F', 'I', 'F', 0, 1}, "cut PNG": []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"),
		"cut GIF": []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00"), "cut WebP": []byte("RIFF\x00\x00\x00\x00WEBP"),
		"empty GIF": []byte("GIF89a\x00\x00\x00\x00\x00\x00\x00,\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00;"),
	} {
		_, err := Probe(bytes.NewReader(data))
		require.ErrorIs(t, err, ErrFormat, name)
	}
}

// A picture whose beginning is well and whose rest is not is refused too.
func TestBroken(t *testing.T) {
	for _, data := range [][]byte{asPNG(t, quarters(300, 300)), asJPEG(t, quarters(300, 300), 0), animation(t, 300, 300, 2)} {
		info := probed(t, data)
		_, _, err := Make(bytes.NewReader(data[:len(data)/3]), info, Spec{Width: 32, Height: 32})
		require.ErrorIs(t, err, ErrFormat)
	}
	_, _, err := Make(bytes.NewReader(nil), Info{Width: 1, Height: 1}, Spec{Width: 1, Height: 1})
	require.ErrorIs(t, err, ErrFormat)
}

func FuzzThumbnail(f *testing.F) {
	f.Add(asPNG(f, quarters(40, 30)), 32, 32, true, false)
	f.Add(asJPEG(f, quarters(40, 30), 6), 32, 16, false, false)
	f.Add(animation(f, 40, 30, 3), 16, 16, true, true)
	f.Add([]byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"), 8, 8, false, false)
	f.Fuzz(func(t *testing.T, data []byte, w, h int, crop, animated bool) {
		info, err := Probe(bytes.NewReader(data))
		if err != nil {
			require.ErrorIs(t, err, ErrFormat)
			return
		}
		require.Positive(t, info.Pixels())
		if info.Pixels() > 1<<20 || info.Area > 1<<20 {
			return
		}
		want := Spec{Width: 1 + (w&0x7fffffff)%2000, Height: 1 + (h&0x7fffffff)%2000, Crop: crop, Animated: animated}
		out, _, err := Make(bytes.NewReader(data), info, want)
		if err != nil {
			return
		}
		c, _, err := image.DecodeConfig(bytes.NewReader(out))
		require.NoError(t, err)
		require.LessOrEqual(t, c.Width, max(want.Width, 1))
		require.LessOrEqual(t, c.Height, max(want.Height, 1))
	})
}

// A photograph of 12 megapixels, as telephones make them.
func BenchmarkThumbnail(b *testing.B) {
	data := asJPEG(b, quarters(4000, 3000), 6)
	for _, want := range []Spec{{Width: 96, Height: 96, Crop: true}, {Width: 800, Height: 600}} {
		b.Run(fmt.Sprintf("%dx%d", want.Width, want.Height), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				info, err := Probe(bytes.NewReader(data))
				require.NoError(b, err)
				_, _, err = Make(bytes.NewReader(data), info, want)
				require.NoError(b, err)
			}
		})
	}
}
