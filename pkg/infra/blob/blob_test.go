package blob_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/heddle-im/heddle/pkg/infra/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stores are one of each kind. The same tests are for all.
func stores(t *testing.T, f func(t *testing.T, s blob.Store)) {
	t.Run("folder", func(t *testing.T) {
		s, err := blob.OpenFolder(filepath.Join(t.TempDir(), "media"))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		f(t, s)
	})
	t.Run("S3", func(t *testing.T) { f(t, openS3(t)) })
}

func openS3(t *testing.T) blob.Store {
	t.Helper()
	backend := s3mem.New()
	require.NoError(t, backend.CreateBucket("media"))
	server := httptest.NewTLSServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	s, err := blob.OpenS3(blob.S3Config{
		Endpoint: server.URL, Region: "us-east-1", Bucket: "media", AccessKey: "a", SecretKey: "s", Prefix: "heddle/", PathStyle: true,
		Transport: server.Client().Transport,
	})
	require.NoError(t, err)
	return s
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func read(t *testing.T, s blob.Store, name string) []byte {
	t.Helper()
	b, err := s.Open(t.Context(), name)
	require.NoError(t, err)
	defer b.Close()
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.EqualValues(t, len(got), b.Size())
	return got
}

func missing(t *testing.T, s blob.Store, name string) {
	t.Helper()
	_, err := s.Open(t.Context(), name)
	require.ErrorIs(t, err, blob.ErrNotFound)
}

func TestPutOpenDelete(t *testing.T) {
	stores(t, func(t *testing.T, s blob.Store) {
		for name, length := range map[string]int{"empty-one": 0, "small-one": 1000, "between1": 100 << 10, "large-one": 9<<20 + 17} {
			want := random(length)
			for suffix, size := range map[string]int64{"_known": int64(length), "_unknown": -1} {
				missing(t, s, name+suffix)
				n, err := s.Put(t.Context(), name+suffix, iotest.OneByteReader(bytes.NewReader(want[:min(10, length)])), int64(min(10, length)))
				require.NoError(t, err)
				require.EqualValues(t, min(10, length), n)
				// Again is over it: after a failure it is not known how far the first came.
				n, err = s.Put(t.Context(), name+suffix, bytes.NewReader(want), size)
				require.NoError(t, err)
				require.EqualValues(t, length, n)
				require.True(t, bytes.Equal(want, read(t, s, name+suffix)), name+suffix)
				require.NoError(t, s.Delete(t.Context(), name+suffix))
				missing(t, s, name+suffix)
				require.NoError(t, s.Delete(t.Context(), name+suffix), "again")
			}
		}
	})
}

func TestSeek(t *testing.T) {
	stores(t, func(t *testing.T, s blob.Store) {
		want := random(1 << 20)
		_, err := s.Put(t.Context(), "sought-one", bytes.NewReader(want), -1)
		require.NoError(t, err)
		b, err := s.Open(t.Context(), "sought-one")
		require.NoError(t, err)
		defer b.Close()
		end, err := b.Seek(0, io.SeekEnd)
		require.NoError(t, err)
		require.EqualValues(t, len(want), end)
		n, err := b.Read(make([]byte, 1))
		require.Zero(t, n)
		require.ErrorIs(t, err, io.EOF)
		for _, at := range []int64{700_000, 0, 1<<20 - 5} {
			_, err := b.Seek(at, io.SeekStart)
			require.NoError(t, err)
			part := make([]byte, 5)
			_, err = io.ReadFull(b, part)
			require.NoError(t, err)
			require.Equal(t, want[at:at+5], part)
		}
		_, err = b.Seek(-1, io.SeekStart)
		require.Error(t, err)
	})
}

var errCut = errors.New("the client is gone")

// What does not come whole leaves nothing that can be opened, and hides nothing that was there.
func TestWhatIsCutShortIsNotSeen(t *testing.T) {
	stores(t, func(t *testing.T, s blob.Store) {
		for _, length := range []int{10, 100 << 10, 9 << 20} {
			cut := func() io.Reader { return io.MultiReader(bytes.NewReader(random(length)), iotest.ErrReader(errCut)) }
			for _, size := range []int64{-1, int64(length) + 1} {
				_, err := s.Put(t.Context(), "cut-short", cut(), size)
				require.ErrorIs(t, err, errCut)
				missing(t, s, "cut-short")
			}
			_, err := s.Put(t.Context(), "cut-short", bytes.NewReader(random(length)), int64(length)+1)
			require.Error(t, err, "shorter than was said")
			missing(t, s, "cut-short")
			_, err = s.Put(t.Context(), "cut-short", bytes.NewReader(random(length)), int64(length)-1)
			require.Error(t, err, "longer than was said")
			missing(t, s, "cut-short")
			ctx, cancel := context.WithCancel(t.Context())
			_, err = s.Put(ctx, "cut-short", io.MultiReader(bytes.NewReader(random(length)), readerFunc(func([]byte) (int, error) {
				cancel()
				return 0, nil
			})), -1)
			require.ErrorIs(t, err, context.Canceled)
			missing(t, s, "cut-short")
			require.NoError(t, s.Delete(t.Context(), "cut-short"))
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The folder has nothing in it beside whole files, whatever failed.
func TestNothingIsLeftBehind(t *testing.T) {
	dir := t.TempDir()
	s, err := blob.OpenFolder(dir)
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Put(t.Context(), "left-behind", iotest.ErrReader(errCut), -1)
	require.ErrorIs(t, err, errCut)
	require.Empty(t, files(t, dir))
	// A process that was killed leaves a part behind; who deletes the name deletes that too.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "le", "ft", "left-behind.part"), []byte("half"), 0o600))
	missing(t, s, "left-behind")
	require.NoError(t, s.Delete(t.Context(), "left-behind"))
	require.Empty(t, files(t, dir))
	_, err = s.Put(t.Context(), "left-behind", strings.NewReader("whole"), 5)
	require.NoError(t, err)
	require.Equal(t, []string{"le/ft/left-behind"}, files(t, dir))
	info, err := os.Stat(filepath.Join(dir, "le/ft/left-behind"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func files(t *testing.T, dir string) (out []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			out = append(out, rel)
		}
		return err
	}))
	return out
}

func TestNamesCannotEscape(t *testing.T) {
	stores(t, func(t *testing.T, s blob.Store) {
		for _, name := range []string{
			"", "short", "../../etc/passwd", "..%2f..%2fetc", "aa/bb/ccdd", `aa\bb\ccdd`, "abcdefgh\x00", "abcdefgh.part", "äbcdefgh", ".abcdefgh",
			"abcdefgh ", strings.Repeat("a", 129),
		} {
			_, err := s.Put(t.Context(), name, strings.NewReader("x"), 1)
			require.Error(t, err, "%q", name)
			_, err = s.Open(t.Context(), name)
			require.Error(t, err, "%q", name)
			require.Error(t, s.Delete(t.Context(), name), "%q", name)
		}
	})
}

// A link in the folder that leads out of it is not followed.
func TestLinksDoNotLeadOut(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret-file"), []byte("secret"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "se"), 0o700))
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "se", "cr")))
	s, err := blob.OpenFolder(dir)
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Open(t.Context(), "secret-file")
	require.Error(t, err)
	_, err = s.Put(t.Context(), "secret-other", strings.NewReader("x"), 1)
	require.Error(t, err)
	require.Equal(t, []string{"secret-file"}, files(t, outside))
}

func TestManyAtOnce(t *testing.T) {
	stores(t, func(t *testing.T, s blob.Store) {
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				name := "together" + string(rune('a'+i))
				want := random(50_000 + i)
				if _, err := s.Put(t.Context(), name, bytes.NewReader(want), -1); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				b, err := s.Open(t.Context(), name)
				if err != nil {
					t.Errorf("open: %v", err)
					return
				}
				defer b.Close()
				if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, want) {
					t.Errorf("read: %v", err)
				}
			})
		}
		all.Wait()
	})
}

// What is stored passes through, and is not gathered.
func TestMemoryIsBounded(t *testing.T) {
	s, err := blob.OpenFolder(t.TempDir())
	require.NoError(t, err)
	defer s.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = s.Put(t.Context(), "heavy-one", io.LimitReader(zeros{}, 64<<20), -1)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestMistakes(t *testing.T) {
	_, err := blob.OpenFolder("/dev/null/media")
	require.Error(t, err)
	_, err = blob.OpenS3(blob.S3Config{Endpoint: "https://example.org/path"})
	require.Error(t, err)
	s, err := blob.OpenS3(blob.S3Config{Endpoint: "http://127.0.0.1:1", Region: "x", Bucket: "media", AccessKey: "a", SecretKey: "b"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Open(ctx, "unreachable")
	require.Error(t, err)
	require.NotErrorIs(t, err, blob.ErrNotFound)
}
