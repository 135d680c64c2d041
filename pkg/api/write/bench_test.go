package write_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/heddle-im/heddle/pkg/infra/pg"
)

// BenchmarkCreateRoom makes rooms, bare ones and with what clients ask for, over HTTP.
func BenchmarkCreateRoom(b *testing.B) {
	s := newStack(b)
	s.users("alice", "bob")
	for _, c := range []struct{ name, body string }{
		{"bare", `{}`},
		{"encrypted", `{"preset":"trusted_private_chat","name":"the loom","topic":"warp and weft","is_direct":true,"invite":["` + bob + `"],
			"initial_state":[{"type":"m.room.encryption","content":{"algorithm":"m.megolm.v1.aes-sha2"}}]}`},
	} {
		b.Run(c.name, func(b *testing.B) {
			var queries int64
			b.ReportAllocs()
			for b.Loop() {
				ctx, tally := pg.WithTally(b.Context())
				r := httptest.NewRequest(http.MethodPost, "/_matrix/client/v3/createRoom", strings.NewReader(c.body)).WithContext(ctx)
				r.Header.Set("Authorization", "Bearer "+s.tokens["alice"])
				w := httptest.NewRecorder()
				s.router.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatalf("%d %s", w.Code, w.Body)
				}
				queries += tally.Count()
			}
			b.ReportMetric(float64(queries)/float64(b.N), "queries/op")
		})
	}
}
