package account_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/infra/pg"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

// BenchmarkLogin logs a user in by password, hashed at the cost that accounts have, on a new device each time, as many at a time as there
// are processors.
func BenchmarkLogin(b *testing.B) {
	w := roomtest.New(b)
	front := w.AccountsAt(account.Config{}, account.DefaultArgon2())
	const users = 20
	for i := range users {
		_, err := front.Register(b.Context(), account.NewUser{Localpart: fmt.Sprint("u", i), Password: "correct horse", InhibitLogin: true})
		require.NoError(b, err)
	}
	ctx, tally := pg.WithTally(b.Context())
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, err := front.LoginPassword(ctx, string(roomtest.User(fmt.Sprint("u", i%users))), "correct horse", account.NewDevice{DeviceID: fmt.Sprint("D", i%100)}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "logins/s")
	b.ReportMetric(float64(tally.Count())/float64(b.N), "queries/op")
}
