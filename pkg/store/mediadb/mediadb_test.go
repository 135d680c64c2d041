package mediadb_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/mediadb"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

func open(t *testing.T) (*mediadb.DB, *pgtest.DB) {
	t.Helper()
	db := pgtest.New(t)
	return mediadb.NewDB(db.Pool, shard.NewMap("example.org", 4)), db
}

func hash(of string) []byte {
	h := sha256.Sum256([]byte(of))
	return h[:]
}

func media(id, content, blob string) *mediadb.Media {
	return &mediadb.Media{
		Key: mediadb.Key{Origin: "example.org", ID: id}, User: "@alice:example.org", Created: 1000, SHA256: hash(content), Blob: blob,
		Size: int64(len(content)), ContentType: "text/plain", FileName: "a file",
	}
}

func add(t *testing.T, d *mediadb.DB, m *mediadb.Media) {
	t.Helper()
	require.NoError(t, d.Begin(t.Context(), m.Blob, 1000))
	require.NoError(t, d.Add(t.Context(), m))
}

func TestEqualContentsAreStoredOnce(t *testing.T) {
	d, _ := open(t)
	first, second := media("first", "content", "blob-one"), media("second", "content", "blob-two")
	add(t, d, first)
	add(t, d, second)
	require.Equal(t, "blob-one", second.Blob)
	got, ok, err := d.Get(t.Context(), second.Key)
	require.NoError(t, err)
	require.True(t, ok)
	second.LastAccess = 1000
	require.Equal(t, *second, got)
	gone, err := d.Condemned(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"blob-two"}, gone)
	require.NoError(t, d.Removed(t.Context(), "blob-two"))

	// Its thumbnails and the content itself go with the last.
	require.NoError(t, d.Begin(t.Context(), "thumb-one", 1000))
	require.NoError(t, d.AddThumbnail(t.Context(), hash("content"), &mediadb.Thumbnail{Width: 32, Height: 32, Crop: true, ContentType: "image/png", Size: 3, Blob: "thumb-one"}))
	for i, m := range []*mediadb.Media{first, second} {
		ok, err := d.Delete(t.Context(), m.Key)
		require.NoError(t, err)
		require.True(t, ok)
		ok, err = d.Delete(t.Context(), m.Key)
		require.NoError(t, err)
		require.False(t, ok, "again")
		_, ok, err = d.Get(t.Context(), m.Key)
		require.NoError(t, err)
		require.False(t, ok)
		gone, err = d.Condemned(t.Context(), 0, 10)
		require.NoError(t, err)
		require.Len(t, gone, 2*i)
	}
	require.ElementsMatch(t, []string{"blob-one", "thumb-one"}, gone)
	require.NoError(t, d.Begin(t.Context(), "thumb-two", 1000))
	require.ErrorIs(t, d.AddThumbnail(t.Context(), hash("content"), &mediadb.Thumbnail{Width: 32, Height: 32, Blob: "thumb-two"}), mediadb.ErrGone)
}

func TestAURIHasOneContent(t *testing.T) {
	d, _ := open(t)
	add(t, d, media("one", "content", "blob-one"))
	other := media("one", "another", "blob-two")
	require.NoError(t, d.Begin(t.Context(), "blob-two", 1000))
	require.ErrorIs(t, d.Add(t.Context(), other), mediadb.ErrExists)
	got, _, err := d.Get(t.Context(), other.Key)
	require.NoError(t, err)
	require.Equal(t, hash("content"), got.SHA256)
	// Nothing of it was taken: it is still loose, and can be abandoned.
	require.NoError(t, d.Abandon(t.Context(), "blob-two"))
	gone, err := d.Condemned(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"blob-two"}, gone)
}

// What took longer than a blob may take to be written is removed, and its writer learns of it.
func TestWhatIsBeingRemovedIsNotTaken(t *testing.T) {
	d, _ := open(t)
	m := media("slow", "content", "blob-one")
	require.NoError(t, d.Begin(t.Context(), m.Blob, 1000))
	gone, err := d.Condemned(t.Context(), 1000, 10)
	require.NoError(t, err)
	require.Empty(t, gone, "not yet")
	gone, err = d.Condemned(t.Context(), 1001, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"blob-one"}, gone)
	require.ErrorIs(t, d.Add(t.Context(), m), mediadb.ErrGone)
	require.NoError(t, d.Removed(t.Context(), "blob-one"))
	require.ErrorIs(t, d.Add(t.Context(), m), mediadb.ErrGone)
	_, ok, err := d.Get(t.Context(), m.Key)
	require.NoError(t, err)
	require.False(t, ok)
}

func TestAnnounced(t *testing.T) {
	d, _ := open(t)
	for i := range 3 {
		m := media(fmt.Sprint("later-", i), "", "")
		m.Expires = int64(5000 + i)
		ok, _, err := d.Announce(t.Context(), m, 1000, 3)
		require.NoError(t, err)
		require.True(t, ok)
	}
	m := media("later-3", "content", "blob-one")
	m.Expires = 6000
	ok, next, err := d.Announce(t.Context(), m, 1000, 3)
	require.NoError(t, err)
	require.False(t, ok)
	require.EqualValues(t, 5000, next)
	ok, _, err = d.Announce(t.Context(), m, 5000, 3)
	require.NoError(t, err)
	require.True(t, ok, "the first has expired")

	require.NoError(t, d.Begin(t.Context(), "blob-one", 5000))
	require.NoError(t, d.Complete(t.Context(), m, 5500))
	require.NoError(t, d.Begin(t.Context(), "blob-two", 5000))
	m.Blob = "blob-two"
	require.ErrorIs(t, d.Complete(t.Context(), m, 5500), mediadb.ErrExists)
	late := media("later-0", "late", "blob-two")
	require.ErrorIs(t, d.Complete(t.Context(), late, 5500), mediadb.ErrExists, "too late")
	n, err := d.DeleteExpired(t.Context(), 5500, 100)
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	got, ok, err := d.Get(t.Context(), m.Key)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "blob-one", got.Blob)
	used, err := d.Used(t.Context(), m.User)
	require.NoError(t, err)
	require.EqualValues(t, len("content"), used)
}

// Announcing is counted although it comes at the same time.
func TestAnnouncedAtOnce(t *testing.T) {
	d, db := open(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			m := media(fmt.Sprint("later-", i), "", "")
			m.Expires = 5000
			if _, _, err := d.Announce(t.Context(), m, 1000, 5); err != nil {
				t.Errorf("announce: %v", err)
			}
		})
	}
	all.Wait()
	var n int
	require.NoError(t, db.Pool.QueryRow(t.Context(), "SELECT count(*) FROM media").Scan(&n))
	require.Equal(t, 5, n)
}

func TestQuarantineIsOfContents(t *testing.T) {
	d, _ := open(t)
	first, second, third := media("first", "bad", "blob-one"), media("second", "bad", "blob-two"), media("third", "bad", "blob-three")
	add(t, d, first)
	add(t, d, second)
	ok, err := d.Protect(t.Context(), second.Key, true)
	require.NoError(t, err)
	require.True(t, ok)
	n, err := d.Quarantine(t.Context(), first.Key, "@admin:example.org")
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "the other is protected")
	add(t, d, third)
	for m, by := range map[*mediadb.Media]string{first: "@admin:example.org", second: "", third: "@admin:example.org"} {
		got, _, err := d.Get(t.Context(), m.Key)
		require.NoError(t, err)
		require.Equal(t, by, got.QuarantinedBy, m.ID)
	}
	n, err = d.Quarantine(t.Context(), third.Key, "")
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	got, _, err := d.Get(t.Context(), first.Key)
	require.NoError(t, err)
	require.Empty(t, got.QuarantinedBy)
}

func TestUnusedOfOthers(t *testing.T) {
	d, _ := open(t)
	own, old, used := media("own", "a", "blob-own"), media("old", "b", "blob-old"), media("used", "c", "blob-used")
	for _, m := range []*mediadb.Media{old, used} {
		m.Kind, m.User, m.Origin = mediadb.Remote, "", "other.org"
	}
	for _, m := range []*mediadb.Media{own, old, used} {
		add(t, d, m)
	}
	require.NoError(t, d.Touch(t.Context(), map[mediadb.Key]int64{used.Key: 2000, own.Key: 3000, {Origin: "other.org", ID: "none"}: 1}))
	require.NoError(t, d.Touch(t.Context(), map[mediadb.Key]int64{used.Key: 1500}))
	keys, err := d.Unused(t.Context(), 2000, 10)
	require.NoError(t, err)
	require.Equal(t, []mediadb.Key{old.Key}, keys)
	for k, gone := range map[mediadb.Key]bool{old.Key: true, used.Key: false, own.Key: false} {
		ok, err := d.DeleteUnused(t.Context(), k, 2000)
		require.NoError(t, err)
		require.Equal(t, gone, ok)
	}
}

// Contents come and go under many hands, and those that somebody has are there.
func TestTakingHoldAndLettingGo(t *testing.T) {
	d, db := open(t)
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 20 {
				m := media(fmt.Sprintf("m-%d-%d", w, i), fmt.Sprint("content ", i%2), fmt.Sprintf("blob-%d-%d", w, i))
				if err := d.Begin(t.Context(), m.Blob, 1000); err != nil {
					t.Errorf("begin: %v", err)
				}
				if err := d.Add(t.Context(), m); err != nil {
					t.Errorf("add: %v", err)
				}
				if i%4 == 3 {
					continue // it stays
				}
				if _, err := d.Delete(t.Context(), m.Key); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	all.Wait()
	var wrong, lost, refs int
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM media m LEFT JOIN media_blob b USING (sha256) WHERE b.name IS DISTINCT FROM m.blob`).Scan(&wrong))
	require.Zero(t, wrong, "media whose blob is another")
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT count(*) FROM media JOIN media_loose ON blob = name`).Scan(&lost))
	require.Zero(t, lost, "media whose blob is to be removed")
	require.NoError(t, db.Pool.QueryRow(t.Context(), `SELECT sum(refs) FROM media_blob`).Scan(&refs))
	require.Equal(t, 8*5, refs)
}

func TestPreviews(t *testing.T) {
	d, _ := open(t)
	url := sha256.Sum256([]byte("https://example.org/"))
	_, ok, err := d.Preview(t.Context(), url, 1000)
	require.NoError(t, err)
	require.False(t, ok)
	for _, answer := range []string{"{}", `{"og:title":"x"}`} {
		require.NoError(t, d.KeepPreview(t.Context(), url, []byte(answer), 1000, 2000))
		got, ok, err := d.Preview(t.Context(), url, 1999)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, answer, string(got))
	}
	_, ok, err = d.Preview(t.Context(), url, 2000)
	require.NoError(t, err)
	require.False(t, ok)
	n, err := d.DeletePreviews(t.Context(), 2001, 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}
