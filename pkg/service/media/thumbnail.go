package media

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media/internal/thumb"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// WantThumbnail is what somebody asks for.
type WantThumbnail struct {
	Want
	Width, Height  int
	Crop, Animated bool
}

const (
	// maxSide bounds what may be asked for.
	maxSide = 1 << 15
	// maxThumbnails are how many are stored of one content; more are made anew each time.
	maxThumbnails = 32
)

// steps are the sides of what is made if no configured size is large enough.
func steps() []int {
	return []int{32, 64, 96, 128, 192, 256, 320, 480, 640, 800, 1024, 1280, 1600, 2048}
}

// DefaultSizes are those that the specification names.
func DefaultSizes() []Size {
	return []Size{{32, 32, true}, {96, 96, true}, {320, 240, false}, {640, 480, false}, {800, 600, false}}
}

// specOf gives what is made for a request: never less than was asked for, and few different ones.
func (s *Service) specOf(w WantThumbnail) thumb.Spec {
	best := thumb.Spec{Width: maxSide + 1, Height: maxSide + 1}
	for _, c := range s.cfg.Sizes {
		same := !w.Crop || int64(c.Width)*int64(w.Height) == int64(c.Height)*int64(w.Width) // of the same shape
		if c.Crop == w.Crop && c.Width >= w.Width && c.Height >= w.Height && same && c.Width*c.Height < best.Width*best.Height {
			best = thumb.Spec{Width: c.Width, Height: c.Height}
		}
	}
	if best.Width > maxSide {
		best = stepOf(w)
	}
	best.Crop, best.Animated = w.Crop, w.Animated
	return best
}

func stepOf(w WantThumbnail) thumb.Spec {
	long := max(w.Width, w.Height)
	for _, step := range steps() {
		if step < long {
			continue
		}
		if !w.Crop { // what fits into the smaller fits into this, and is larger in it
			return thumb.Spec{Width: step, Height: step}
		}
		up := func(n int) int { return (n*step + long - 1) / long }
		return thumb.Spec{Width: up(w.Width), Height: up(w.Height)}
	}
	if !w.Crop {
		return thumb.Spec{Width: long, Height: long}
	}
	return thumb.Spec{Width: w.Width, Height: w.Height}
}

// Thumbnail gives a smaller picture of a content, or the content itself if that is small enough.
func (s *Service) Thumbnail(ctx context.Context, w WantThumbnail) (*Content, error) {
	if w.Width <= 0 || w.Height <= 0 || w.Width > maxSide || w.Height > maxSide {
		return nil, mxerr.Newf(mxerr.InvalidParam, "width and height must be from 1 to %d", maxSide)
	}
	m, err := s.find(ctx, w.Want)
	if err != nil {
		return nil, err
	}
	spec := s.specOf(w)
	known, err := s.o.DB.Thumbnails(ctx, m.SHA256)
	if err != nil {
		return nil, err
	}
	if t := pick(known, spec); t != nil {
		return s.thumbnail(ctx, m, t)
	}
	info, err := s.probe(ctx, m)
	if err != nil {
		return nil, err
	}
	if spec.Animated && !info.Animated { // as if it had not been asked for
		spec.Animated = false
		if t := pick(known, spec); t != nil {
			return s.thumbnail(ctx, m, t)
		}
	}
	small := info.Width <= spec.Width && info.Height <= spec.Height
	// Only GIFs can be made smaller with their frames; of others that move there is only the whole.
	moving := spec.Animated && info.Animated
	if small && (!info.Animated || spec.Animated) || moving && info.Format != thumb.GIF {
		c, err := s.whole(ctx, m)
		if err == nil {
			c.ContentType, c.FileName = string(info.Format), "thumbnail"+ending(string(info.Format))
			s.served.WithLabelValues("thumbnail").Inc()
		}
		return c, err
	}
	if spec.Animated && !s.affordable(info, true) {
		spec.Animated = false
	}
	if !s.affordable(info, false) {
		e := mxerr.New(mxerr.TooLarge, "Content is too large to thumbnail")
		if m.Kind == mediadb.Remote {
			e = e.WithStatus(http.StatusBadGateway)
		}
		return nil, e
	}
	key := thumbKey{hash: [32]byte(m.SHA256), spec: spec}
	made, err := s.makes.do(ctx, s.tasks, key, func(ctx context.Context) (*madeThumbnail, error) {
		t, err := s.make(ctx, m, info, spec, len(known) < maxThumbnails)
		s.made.WithLabelValues(outcome(err)).Inc()
		return t, err
	})
	if err != nil {
		return nil, err
	}
	s.use(m)
	s.served.WithLabelValues("thumbnail").Inc()
	return &Content{
		Body: readable{bytes.NewReader(made.data)}, Size: int64(len(made.data)), ContentType: made.contentType,
		FileName: "thumbnail" + ending(made.contentType), ETag: etag(m.SHA256, variant(spec)),
	}, nil
}

// readable is bytes as a body.
type readable struct{ *bytes.Reader }

func (readable) Close() error { return nil }

// pick finds a thumbnail that is what is wanted. Each is known by what it was made for, which may be larger than it is.
func pick(known []mediadb.Thumbnail, spec thumb.Spec) *mediadb.Thumbnail {
	for i, t := range known {
		if t.Width == spec.Width && t.Height == spec.Height && t.Crop == spec.Crop && t.Animated == spec.Animated {
			return &known[i]
		}
	}
	return nil
}

func (s *Service) thumbnail(ctx context.Context, m *mediadb.Media, t *mediadb.Thumbnail) (*Content, error) {
	b, err := s.open(ctx, t.Blob)
	if err != nil {
		return nil, err
	}
	s.use(m)
	s.served.WithLabelValues("thumbnail").Inc()
	return &Content{
		Body: b, Size: b.Size(), ContentType: t.ContentType, FileName: "thumbnail" + ending(t.ContentType),
		ETag: etag(m.SHA256, variant(thumb.Spec{Width: t.Width, Height: t.Height, Crop: t.Crop, Animated: t.Animated})),
	}, nil
}

func variant(s thumb.Spec) string {
	v := fmt.Sprintf("-%dx%d", s.Width, s.Height)
	if s.Crop {
		v += "c"
	}
	if s.Animated {
		v += "a"
	}
	return v
}

func ending(contentType string) string {
	switch contentType {
	case "image/jpeg":
		return ".jpg"
	case "image/gif":
		return ".gif"
	case "image/webp":
		return ".webp"
	default:
		return ".png"
	}
}

// thumbKey is what is made once for all who want it.
type thumbKey struct {
	hash [32]byte
	spec thumb.Spec
}

type madeThumbnail struct {
	data        []byte
	contentType string
}

func notAPicture(err error) error {
	return mxerr.New(mxerr.Unknown, "Cannot generate thumbnails for the requested content").WithStatus(http.StatusBadRequest).WithCause(err)
}

// probe looks at what kind of picture a content is.
func (s *Service) probe(ctx context.Context, m *mediadb.Media) (thumb.Info, error) {
	b, err := s.open(ctx, m.Blob)
	if err != nil {
		return thumb.Info{}, err
	}
	defer func() { _ = b.Close() }()
	info, err := thumb.Probe(b)
	if errors.Is(err, thumb.ErrFormat) {
		return info, notAPicture(err)
	}
	return info, err
}

// affordable tells whether a picture may be decoded.
func (s *Service) affordable(info thumb.Info, animated bool) bool {
	pixels := info.Pixels()
	if animated {
		pixels = max(pixels, info.Area)
	}
	return pixels <= s.cfg.MaxPixels && info.Memory(animated) <= s.cfg.ImageMemory
}

// make makes a thumbnail, as soon as there is room for that, and stores it.
func (s *Service) make(ctx context.Context, m *mediadb.Media, info thumb.Info, spec thumb.Spec, keep bool) (*madeThumbnail, error) {
	weight := min(info.Memory(spec.Animated), s.cfg.ImageMemory)
	if err := s.memory.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	defer s.memory.Release(weight)
	if err := s.workers.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer s.workers.Release(1)
	b, err := s.open(ctx, m.Blob)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }()
	var out madeThumbnail
	if out.data, out.contentType, err = thumb.Make(b, info, spec); err != nil {
		if errors.Is(err, thumb.ErrFormat) {
			err = notAPicture(err)
		}
		return nil, err
	}
	if keep {
		s.keepThumbnail(ctx, m, spec, &out)
	}
	return &out, nil
}

// keepThumbnail stores a thumbnail. If that fails it is made again another time.
func (s *Service) keepThumbnail(ctx context.Context, m *mediadb.Media, spec thumb.Spec, made *madeThumbnail) {
	t := mediadb.Thumbnail{
		Width: spec.Width, Height: spec.Height, Crop: spec.Crop, Animated: spec.Animated, ContentType: made.contentType, Blob: s.o.Random(),
		Size: int64(len(made.data)),
	}
	err := s.o.DB.Begin(ctx, t.Blob, s.now())
	if err == nil {
		if _, err = s.o.Blobs.Put(ctx, t.Blob, io.Reader(bytes.NewReader(made.data)), t.Size); err == nil {
			err = s.o.DB.AddThumbnail(ctx, m.SHA256, &t)
		}
		if err != nil {
			s.abandon(ctx, t.Blob)
		}
	}
	if err != nil && !errors.Is(err, mediadb.ErrExists) && !errors.Is(err, mediadb.ErrGone) {
		s.o.Log.WarnContext(ctx, "a thumbnail was not stored", "content", hex.EncodeToString(m.SHA256), "error", err)
	}
}
