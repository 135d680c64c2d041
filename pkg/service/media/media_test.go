package media_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/blob"
	"github.com/heddle-im/heddle/pkg/infra/outhttp"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/mxerr"
	"github.com/heddle-im/heddle/pkg/service/media"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

const (
	alice = id.UserID("@alice:example.org")
	bob   = id.UserID("@bob:example.org")
)

// world is what several workers share, and the other servers.
type world struct {
	t     testing.TB
	db    *pgtest.DB
	store *mediadb.DB
	dir   string
	now   atomic.Int64

	previews *http.Client

	mu      sync.Mutex // guards all below
	remote  http.Handler
	workers []*media.Service
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, db: pgtest.New(t), dir: filepath.Join(t.TempDir(), "media")}
	w.store = mediadb.NewDB(w.db.Pool, shard.NewMap("example.org", 4))
	w.now.Store(1_700_000_000_000)
	return w
}

// Open implements media.Remote: it asks the handler that is there, over the wire.
func (w *world) Open(ctx context.Context, server id.ServerName, path string, query url.Values, signed bool) (*http.Response, error) {
	w.mu.Lock()
	h := w.remote
	w.mu.Unlock()
	if h == nil {
		return nil, errors.New("there is no such server")
	}
	s := httptest.NewServer(h)
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path+"?"+query.Encode(), http.NoBody)
	require.NoError(w.t, err)
	req.Host = string(server)
	if signed {
		req.Header.Set("Authorization", "X-Matrix")
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		cancel()
		s.Close()
		return nil, err
	}
	answer := resp.Body
	end := func() { cancel(); _ = answer.Close(); s.Close() }
	if resp.StatusCode != http.StatusOK {
		defer end()
		b, _ := io.ReadAll(resp.Body)
		out := &media.RefusedError{Status: resp.StatusCode}
		if e, ok := mxerr.Parse(resp.StatusCode, b); ok {
			out.Code = string(e.Code)
		}
		return nil, out
	}
	resp.Body = &body{resp.Body, end}
	return resp, nil
}

type body struct {
	io.ReadCloser
	end func()
}

func (b *body) Close() error { b.end(); return nil }

func (w *world) answers(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remote = nil
	if h != nil {
		w.remote = h
	}
}

// networks are those that must not be reached.
func networks() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}

// worker starts one more worker.
func (w *world) worker(cfg media.Config) *media.Service {
	w.t.Helper()
	blobs, err := blob.OpenFolder(w.dir)
	require.NoError(w.t, err)
	if cfg.Sizes == nil {
		cfg.Sizes = media.DefaultSizes()
	}
	s := media.New(context.Background(), cfg, media.Options{
		Server: "example.org", DB: w.store, Blobs: blobs, Remote: w, Random: func() string { return strings.ToLower(rand.Text()) },
		HTTP: media.NewClient(outhttp.NewGuard(nil, networks()), nil), Previews: w.previews,
		Now: func() time.Time { return time.UnixMilli(w.now.Load()) },
		Tell: func(uri string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, s := range w.workers {
				s.Hear(uri)
			}
		},
	})
	require.NoError(w.t, s.Start(context.Background()))
	w.mu.Lock()
	w.workers = append(w.workers, s)
	w.mu.Unlock()
	w.t.Cleanup(func() {
		require.NoError(w.t, s.Stop(context.Background()))
		require.NoError(w.t, blobs.Close())
	})
	return s
}

// blobs counts the files in the store.
func (w *world) blobs() (n int) {
	w.t.Helper()
	require.NoError(w.t, filepath.WalkDir(w.dir, func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	return n
}

func file(content, contentType, name string) media.File {
	return media.File{User: alice, ContentType: contentType, Name: name, Body: strings.NewReader(content), Size: int64(len(content))}
}

func upload(t testing.TB, s *media.Service, f media.File) id.MXC {
	t.Helper()
	uri, err := s.Upload(t.Context(), f)
	require.NoError(t, err)
	return uri
}

func elsewhere(mediaID string) id.MXC { return id.MXC{Server: "other.org", Media: mediaID} }

func all(t testing.TB, c *media.Content) string {
	t.Helper()
	defer c.Body.Close()
	b, err := io.ReadAll(c.Body)
	require.NoError(t, err)
	require.EqualValues(t, len(b), c.Size)
	return string(b)
}

func refused(t testing.TB, err error, code mxerr.Code, status int) {
	t.Helper()
	e, ok := errors.AsType[*mxerr.Error](err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, e.Code, "%v", err)
	require.Equal(t, status, e.HTTPStatus, "%v", err)
}

func picture(t testing.TB, w, h int) string {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := 0; i < len(m.Pix); i += 4 {
		m.Pix[i], m.Pix[i+3] = byte(i), 255
	}
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	return b.String()
}

func TestUploadAndDownload(t *testing.T) {
	w := newWorld(t)
	one, two := w.worker(media.Config{}), w.worker(media.Config{})
	for _, f := range []struct{ contentType, name, gotType, disposition string }{
		{"text/plain", "a file.txt", "text/plain", `inline; filename="a file.txt"`},
		{"Text/Plain; charset=utf-8", "", "Text/Plain; charset=utf-8", "inline"},
		{"text/html", "page.html", "text/html", "attachment; filename=page.html"},
		{"image/svg+xml", "🐔.svg", "image/svg+xml", "attachment; filename*=utf-8''%F0%9F%90%94.svg"},
		{"", `a"b\c;d`, "application/octet-stream", `attachment; filename="a\"b\\c;d"`},
		{"image/png\r\nSet-Cookie: x=y", "a\r\nb", "application/octet-stream", "attachment; filename*=utf-8''a%0D%0Ab"},
		{"nonsense", "x", "application/octet-stream", "attachment; filename=x"},
	} {
		uri := upload(t, one, file("content of "+f.name, f.contentType, f.name))
		require.EqualValues(t, "example.org", uri.Server)
		require.True(t, id.ValidMediaID(uri.Media))
		c, err := two.Download(t.Context(), media.Want{URI: uri})
		require.NoError(t, err)
		require.Equal(t, "content of "+f.name, all(t, c))
		require.Equal(t, f.gotType, c.ContentType)
		require.Equal(t, f.disposition, c.Disposition())
		require.NotEmpty(t, c.ETag)
	}
	_, err := one.Download(t.Context(), media.Want{URI: id.MXC{Server: "example.org", Media: "unknown"}})
	refused(t, err, mxerr.NotFound, 404)
	_, err = one.Upload(t.Context(), file("x", "text/plain", strings.Repeat("n", 1025)))
	refused(t, err, mxerr.InvalidParam, 400)
}

func TestLimits(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{MaxUpload: 100, UserQuota: 250})
	large := strings.Repeat("x", 101)
	_, err := s.Upload(t.Context(), file(large, "", ""))
	refused(t, err, mxerr.TooLarge, 413)
	unsaid := file(large, "", "")
	unsaid.Size = -1
	_, err = s.Upload(t.Context(), unsaid)
	refused(t, err, mxerr.TooLarge, 413)

	for i := range 2 {
		upload(t, s, file(strings.Repeat(fmt.Sprint(i), 100), "", ""))
	}
	for _, size := range []int64{51, -1} {
		over := file(strings.Repeat("y", 51), "", "")
		over.Size = size
		_, err = s.Upload(t.Context(), over)
		refused(t, err, mxerr.Forbidden, 403)
	}
	upload(t, s, file(strings.Repeat("z", 50), "", ""))
	_, err = s.Upload(t.Context(), file("", "", ""))
	refused(t, err, mxerr.Forbidden, 403)
	other := file(strings.Repeat("z", 100), "", "")
	other.User = bob
	upload(t, s, other)
	require.NoError(t, s.Sweep(t.Context()))
	require.Equal(t, 4, w.blobs(), "nothing is left of what was refused")
}

var errGone = errors.New("the client is gone")

func TestAnUploadThatIsCutShort(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	f := file("", "text/plain", "")
	f.Body, f.Size = io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errGone)), 100
	_, err := s.Upload(t.Context(), f)
	require.ErrorIs(t, err, errGone)
	require.NoError(t, s.Sweep(t.Context()))
	require.Zero(t, w.blobs())
	var rows int
	require.NoError(t, w.db.Pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM media) + (SELECT count(*) FROM media_loose)").Scan(&rows))
	require.Zero(t, rows)
}

func TestEqualContentsAreOneFile(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	a, b := upload(t, s, file("same", "text/plain", "a")), upload(t, s, file("same", "text/css", "b"))
	require.NotEqual(t, a, b)
	require.NoError(t, s.Sweep(t.Context()))
	require.Equal(t, 1, w.blobs())
	ok, err := s.Delete(t.Context(), a)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, s.Sweep(t.Context()))
	c, err := s.Download(t.Context(), media.Want{URI: b})
	require.NoError(t, err)
	require.Equal(t, "same", all(t, c))
	require.Equal(t, "text/css", c.ContentType)
	_, err = s.Download(t.Context(), media.Want{URI: a})
	refused(t, err, mxerr.NotFound, 404)
	_, err = s.Delete(t.Context(), b)
	require.NoError(t, err)
	require.NoError(t, s.Sweep(t.Context()))
	require.Zero(t, w.blobs())
}

func TestAnnouncedUploads(t *testing.T) {
	w := newWorld(t)
	one, two := w.worker(media.Config{MaxPending: 3, Poll: time.Hour}), w.worker(media.Config{Poll: time.Hour})
	uri, until, err := one.Announce(t.Context(), alice)
	require.NoError(t, err)
	require.Equal(t, w.now.Load()+24*time.Hour.Milliseconds(), until)

	_, err = two.Download(t.Context(), media.Want{URI: uri, Wait: time.Millisecond})
	refused(t, err, mxerr.NotYetUploaded, 504)
	_, err = two.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: uri}, Width: 1, Height: 1})
	refused(t, err, mxerr.NotYetUploaded, 504)
	theirs := file("x", "text/plain", "")
	theirs.User = bob
	refused(t, one.UploadTo(t.Context(), uri, theirs), mxerr.Forbidden, 403)
	refused(t, one.UploadTo(t.Context(), id.MXC{Server: "example.org", Media: "made-up"}, theirs), mxerr.NotFound, 404)
	refused(t, one.UploadTo(t.Context(), elsewhere(uri.Media), theirs), mxerr.NotFound, 404)

	// Who waits elsewhere is told.
	got := make(chan string)
	go func() { // ends with its send
		c, err := two.Download(t.Context(), media.Want{URI: uri, Wait: time.Minute})
		if err != nil {
			got <- err.Error()
			return
		}
		got <- all(t, c)
	}()
	require.NoError(t, one.UploadTo(t.Context(), uri, file("it came", "text/plain", "late.txt")))
	require.Equal(t, "it came", <-got)
	refused(t, one.UploadTo(t.Context(), uri, file("again", "", "")), mxerr.CannotOverwriteMedia, 409)

	for range 3 {
		_, _, err = one.Announce(t.Context(), alice)
		require.NoError(t, err)
	}
	_, _, err = one.Announce(t.Context(), alice)
	refused(t, err, mxerr.LimitExceeded, 429)
	_, _, err = one.Announce(t.Context(), bob)
	require.NoError(t, err)

	// What does not come in time does not come.
	late, _, err := two.Announce(t.Context(), bob)
	require.NoError(t, err)
	w.now.Add(25 * time.Hour.Milliseconds())
	f := file("late", "", "")
	f.User = bob
	refused(t, two.UploadTo(t.Context(), late, f), mxerr.NotFound, 404)
	_, err = two.Download(t.Context(), media.Want{URI: late, Wait: time.Minute})
	refused(t, err, mxerr.NotFound, 404)
	w.now.Add(25 * time.Hour.Milliseconds())
	require.NoError(t, one.Sweep(t.Context()))
	var rows int
	require.NoError(t, w.db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM media").Scan(&rows))
	require.Equal(t, 1, rows)
}

// A hint that is lost costs a little time only.
func TestAnnouncedUploadIsFoundWithoutAHint(t *testing.T) {
	w := newWorld(t)
	one := w.worker(media.Config{})
	uri, _, err := one.Announce(t.Context(), alice)
	require.NoError(t, err)
	two := w.worker(media.Config{Poll: 5 * time.Millisecond})
	w.mu.Lock()
	w.workers = nil // nobody is told
	w.mu.Unlock()
	require.NoError(t, one.UploadTo(t.Context(), uri, file("it came", "", "")))
	c, err := two.Download(t.Context(), media.Want{URI: uri, Wait: time.Minute})
	require.NoError(t, err)
	require.Equal(t, "it came", all(t, c))
}

// Of two who upload to one URI, one has done so.
func TestTwoUploadToOneURI(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	uri, _, err := s.Announce(t.Context(), alice)
	require.NoError(t, err)
	var together sync.WaitGroup
	var done, conflicts atomic.Int32
	for i := range 5 {
		together.Go(func() {
			switch err := s.UploadTo(t.Context(), uri, file(fmt.Sprint("number ", i), "", "")); {
			case err == nil:
				done.Add(1)
			case mxerr.Is(err, mxerr.CannotOverwriteMedia):
				conflicts.Add(1)
			default:
				t.Errorf("upload: %v", err)
			}
		})
	}
	together.Wait()
	require.EqualValues(t, 1, done.Load())
	require.EqualValues(t, 4, conflicts.Load())
	require.NoError(t, s.Sweep(t.Context()))
	require.Equal(t, 1, w.blobs())
}

// What is stored while the old endpoints are closed cannot be had there; what was stored before can.
func TestAnonymous(t *testing.T) {
	w := newWorld(t)
	open, closed := w.worker(media.Config{Open: true}), w.worker(media.Config{})
	before, after := upload(t, open, file("before", "", "")), upload(t, closed, file("after", "", ""))
	w.answers(parts("elsewhere", "text/plain", ""))
	for _, c := range []struct {
		s       *media.Service
		uri     id.MXC
		allowed bool
	}{{open, before, true}, {closed, before, true}, {open, after, true}, {closed, after, false}, {closed, elsewhere("fetched"), false}} {
		got, err := c.s.Download(t.Context(), media.Want{URI: c.uri, Anonymous: true})
		if !c.allowed {
			refused(t, err, mxerr.NotFound, 404)
			continue
		}
		require.NoError(t, err)
		all(t, got)
	}
	pending, _, err := closed.Announce(t.Context(), alice)
	require.NoError(t, err)
	_, err = closed.Download(t.Context(), media.Want{URI: pending, Anonymous: true, Wait: time.Hour})
	refused(t, err, mxerr.NotFound, 404)
}

func TestQuarantine(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	uri := upload(t, s, file("bad", "text/plain", ""))
	w.answers(parts("bad", "text/plain", ""))
	n, err := s.Quarantine(t.Context(), uri, "@admin:example.org")
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	again := upload(t, s, file("bad", "text/plain", ""))
	for _, u := range []id.MXC{uri, again, elsewhere("bad"), elsewhere("bad")} {
		_, err = s.Download(t.Context(), media.Want{URI: u})
		refused(t, err, mxerr.NotFound, 404)
		_, err = s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: u}, Width: 32, Height: 32})
		refused(t, err, mxerr.NotFound, 404)
	}
	_, err = s.Quarantine(t.Context(), uri, "")
	require.NoError(t, err)
	c, err := s.Download(t.Context(), media.Want{URI: elsewhere("bad")})
	require.NoError(t, err)
	all(t, c)
}

func thumbnail(t testing.TB, s *media.Service, q media.WantThumbnail) (image.Point, *media.Content) {
	t.Helper()
	c, err := s.Thumbnail(t.Context(), q)
	require.NoError(t, err)
	m, _, err := image.Decode(strings.NewReader(all(t, c)))
	require.NoError(t, err)
	return m.Bounds().Size(), c
}

func TestThumbnails(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	uri := upload(t, s, file(picture(t, 1600, 800), "image/png", "my picture.png"))
	for _, c := range []struct {
		w, h int
		crop bool
		want image.Point
	}{
		{32, 32, true, image.Pt(32, 32)},
		{32, 32, false, image.Pt(320, 160)}, // the smallest configured one that is large enough
		{50, 50, true, image.Pt(96, 96)},
		{200, 100, true, image.Pt(256, 128)}, // none has that shape
		{640, 480, false, image.Pt(640, 320)},
		{801, 10, false, image.Pt(1024, 512)},
		{1600, 800, false, image.Pt(1600, 800)},
		{3000, 3000, false, image.Pt(1600, 800)},
	} {
		got, content := thumbnail(t, s, media.WantThumbnail{Want: media.Want{URI: uri}, Width: c.w, Height: c.h, Crop: c.crop})
		require.Equal(t, c.want, got, c)
		require.Equal(t, "image/png", content.ContentType)
		require.Equal(t, "inline; filename=thumbnail.png", content.Disposition())
		again, same := thumbnail(t, s, media.WantThumbnail{Want: media.Want{URI: uri}, Width: c.w, Height: c.h, Crop: c.crop})
		require.Equal(t, got, again)
		require.Equal(t, content.ETag, same.ETag)
	}
	require.Equal(t, 7, w.blobs(), "the picture, and what was made once each")

	for _, side := range []int{0, -1, 1 << 20} {
		_, err := s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: uri}, Width: side, Height: 32})
		refused(t, err, mxerr.InvalidParam, 400)
	}
	text := upload(t, s, file("this is no picture at all", "image/png", ""))
	_, err := s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: text}, Width: 32, Height: 32})
	refused(t, err, mxerr.Unknown, 400)
	_, err = s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: id.MXC{Server: "example.org", Media: "none"}}, Width: 32, Height: 32})
	refused(t, err, mxerr.NotFound, 404)

	// They go with the picture.
	_, err = s.Delete(t.Context(), uri)
	require.NoError(t, err)
	require.NoError(t, s.Sweep(t.Context()))
	require.Equal(t, 1, w.blobs())
}

// A thumbnail that is wanted by many at once is made once.
func TestThumbnailsAreMadeOnce(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	uri := upload(t, s, file(picture(t, 1000, 1000), "image/png", ""))
	var together sync.WaitGroup
	for range 20 {
		together.Go(func() {
			c, err := s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: uri}, Width: 320, Height: 240})
			if err != nil {
				t.Errorf("thumbnail: %v", err)
				return
			}
			all(t, c)
		})
	}
	together.Wait()
	var rows int
	require.NoError(t, w.db.Pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM media_thumbnail) + (SELECT count(*) FROM media_loose)").Scan(&rows))
	require.Equal(t, 1, rows)
}

// However many shapes are asked for, few are kept.
func TestFewThumbnailsAreKept(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	uri := upload(t, s, file(picture(t, 200, 200), "image/png", ""))
	for i := range 40 {
		got, _ := thumbnail(t, s, media.WantThumbnail{Want: media.Want{URI: uri}, Width: 128, Height: 40 + i, Crop: true})
		require.Equal(t, image.Pt(128, 40+i), got)
	}
	require.Equal(t, 33, w.blobs())
}

// What a picture says of its size is looked at before it is decoded.
func TestLargePictures(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{MaxPixels: 1_000_000})
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, image.NewPaletted(image.Rect(0, 0, 20000, 20000), color.Palette{color.Black})))
	require.Less(t, b.Len(), 1<<20)
	uri := upload(t, s, file(b.String(), "image/png", ""))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: uri}, Width: 32, Height: 32})
	runtime.ReadMemStats(&after)
	refused(t, err, mxerr.TooLarge, 413)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))

	w.answers(parts(b.String(), "image/png", ""))
	_, err = s.Thumbnail(t.Context(), media.WantThumbnail{Want: media.Want{URI: elsewhere("large")}, Width: 32, Height: 32})
	refused(t, err, mxerr.TooLarge, 502)
}

// An upload and a download pass through.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{MaxUpload: 1 << 30})
	const length = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	uri := upload(t, s, media.File{User: alice, Body: io.LimitReader(zeros{}, length), Size: -1})
	c, err := s.Download(t.Context(), media.Want{URI: uri})
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, c.Body)
	require.NoError(t, err)
	require.EqualValues(t, length, n)
	require.NoError(t, c.Body.Close())
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A content that is in no store is an error that says so, and no empty file.
func TestLostContents(t *testing.T) {
	w := newWorld(t)
	s := w.worker(media.Config{})
	uri := upload(t, s, file("lost", "", ""))
	require.NoError(t, os.RemoveAll(w.dir))
	_, err := s.Download(t.Context(), media.Want{URI: uri})
	refused(t, err, mxerr.NotFound, 404)
}

func BenchmarkUpload(b *testing.B) {
	w := newWorld(b)
	s := w.worker(media.Config{})
	content := make([]byte, 100<<10)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = rand.Read(content)
		_, err := s.Upload(b.Context(), media.File{User: alice, ContentType: "image/png", Body: bytes.NewReader(content), Size: int64(len(content))})
		require.NoError(b, err)
	}
}

func BenchmarkDownload(b *testing.B) {
	w := newWorld(b)
	s := w.worker(media.Config{})
	uri := upload(b, s, file(strings.Repeat("x", 100<<10), "image/png", ""))
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.Download(b.Context(), media.Want{URI: uri})
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, c.Body)
		require.NoError(b, err)
		require.NoError(b, c.Body.Close())
	}
}

// One that was made before.
func BenchmarkStoredThumbnail(b *testing.B) {
	w := newWorld(b)
	s := w.worker(media.Config{})
	uri := upload(b, s, file(picture(b, 1000, 1000), "image/png", ""))
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.Thumbnail(b.Context(), media.WantThumbnail{Want: media.Want{URI: uri}, Width: 96, Height: 96, Crop: true})
		require.NoError(b, err)
		require.NoError(b, c.Body.Close())
	}
}
