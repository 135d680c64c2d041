package media

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
)

// File is what a user uploads.
type File struct {
	User        id.UserID
	ContentType string // "": not said
	Name        string
	Body        io.Reader
	// Size is how long the body is, -1 if that is not said.
	Size int64
}

// Upload stores a file under a new URI. An error of the body is given back as it is.
func (s *Service) Upload(ctx context.Context, f File) (uri id.MXC, err error) {
	defer func() { s.uploaded.WithLabelValues(outcome(err)).Inc() }()
	m := mediadb.Media{Key: mediadb.Key{Origin: string(s.o.Server), ID: s.o.Random()}}
	if err := s.take(ctx, f, &m); err != nil {
		return id.MXC{}, err
	}
	if err := s.o.DB.Add(ctx, &m); err != nil {
		s.abandon(ctx, m.Blob)
		return id.MXC{}, fmt.Errorf("upload: %w", err)
	}
	return id.MXC{Server: s.o.Server, Media: m.ID}, nil
}

// Announce gives a user a new URI whose content may be uploaded until a time, in milliseconds.
func (s *Service) Announce(ctx context.Context, user id.UserID) (uri id.MXC, until int64, err error) {
	now := s.now()
	m := mediadb.Media{
		Key: mediadb.Key{Origin: string(s.o.Server), ID: s.o.Random()}, User: string(user), Expires: now + s.cfg.Unused.Milliseconds(),
	}
	ok, next, err := s.o.DB.Announce(ctx, &m, now, s.cfg.MaxPending)
	if err != nil {
		return id.MXC{}, 0, err
	}
	if !ok {
		e := mxerr.Limited(max(1000, next-now))
		e.Message = "There are too many uploads that you have announced and not made"
		return id.MXC{}, 0, e
	}
	return id.MXC{Server: s.o.Server, Media: m.ID}, m.Expires, nil
}

// UploadTo stores the file that was announced under a URI.
func (s *Service) UploadTo(ctx context.Context, uri id.MXC, f File) (err error) {
	defer func() { s.uploaded.WithLabelValues(outcome(err)).Inc() }()
	m, ok, err := s.o.DB.Get(ctx, mediadb.Key{Origin: string(uri.Server), ID: uri.Media})
	switch {
	case err != nil:
		return err
	case !ok || uri.Server != s.o.Server || m.SHA256 == nil && m.Expires <= s.now():
		return mxerr.New(mxerr.NotFound, "Unknown media ID")
	case m.User != string(f.User):
		return mxerr.New(mxerr.Forbidden, "This media ID was created by somebody else")
	case m.SHA256 != nil:
		return taken()
	}
	if err := s.take(ctx, f, &m); err != nil {
		return err
	}
	if err := s.o.DB.Complete(ctx, &m, s.now()); err != nil {
		s.abandon(ctx, m.Blob)
		if errors.Is(err, mediadb.ErrExists) {
			return taken()
		}
		return fmt.Errorf("upload: %w", err)
	}
	s.Hear(uri.String())
	s.o.Tell(uri.String())
	return nil
}

func taken() error { return mxerr.New(mxerr.CannotOverwriteMedia, "Media already uploaded") }

// take stores a file's content, and writes into m what it is.
func (s *Service) take(ctx context.Context, f File, m *mediadb.Media) error {
	if len(f.Name) > maxNameLength {
		return mxerr.Newf(mxerr.InvalidParam, "The file's name is longer than %d bytes", maxNameLength)
	}
	if f.Size > s.cfg.MaxUpload {
		return tooLarge(s.cfg.MaxUpload)
	}
	body := io.Reader(&bounded{f.Body, s.cfg.MaxUpload, tooLarge(s.cfg.MaxUpload)})
	if s.cfg.UserQuota > 0 {
		used, err := s.o.DB.Used(ctx, string(f.User))
		if err != nil {
			return err
		}
		full := mxerr.New(mxerr.Forbidden, "There is no room left for what you upload")
		left := max(0, s.cfg.UserQuota-used)
		if f.Size > left || left == 0 {
			return full
		}
		body = &bounded{body, left, full}
	}
	m.Kind, m.User, m.Created = mediadb.Uploaded, string(f.User), s.now()
	m.ContentType, m.FileName, m.Open = cleanType(f.ContentType), cleanName(f.Name), s.cfg.Open
	return s.store(ctx, body, f.Size, m)
}

func tooLarge(limit int64) error {
	return mxerr.Newf(mxerr.TooLarge, "Cannot upload files larger than %d bytes", limit)
}

// store writes a content under a new name, and into m how long it is, its hash and its name. The name is loose: the caller has it referred
// to, or abandons it.
func (s *Service) store(ctx context.Context, body io.Reader, size int64, m *mediadb.Media) (err error) {
	m.Blob = s.o.Random()
	if err := s.o.DB.Begin(ctx, m.Blob, s.now()); err != nil {
		return err
	}
	hash := sha256.New()
	if m.Size, err = s.o.Blobs.Put(ctx, m.Blob, io.TeeReader(body, hash), size); err != nil {
		s.abandon(ctx, m.Blob)
		return fmt.Errorf("store content: %w", err)
	}
	m.SHA256 = hash.Sum(nil)
	return nil
}

// abandonTime bounds what is done when all else failed.
const abandonTime = 5 * time.Second

// abandon has a blob removed that was begun. If that fails it is found later.
func (s *Service) abandon(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	if err := s.o.DB.Abandon(ctx, name); err != nil {
		s.o.Log.WarnContext(ctx, "a blob that is not needed is left for later", "error", err)
	}
}

// bounded is a reader that must not give more than left bytes.
type bounded struct {
	r    io.Reader
	left int64
	err  error // if it does
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		b.left = 0
		return n, b.err
	}
	b.left -= int64(n)
	return n, err
}

// outcome is how metrics call what became of something.
func outcome(err error) string {
	var e *mxerr.Error
	switch {
	case err == nil:
		return "done"
	case errors.Is(err, context.Canceled):
		return "given_up"
	case errors.As(err, &e) && e.HTTPStatus < 500:
		return "refused"
	default:
		return "failed"
	}
}
