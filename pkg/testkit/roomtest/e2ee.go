package roomtest

import (
	"time"

	"github.com/heddle-im/heddle/pkg/service/e2ee"
	"github.com/heddle-im/heddle/pkg/store/e2eedb"
	"github.com/heddle-im/heddle/pkg/store/readdb"
	"github.com/heddle-im/heddle/pkg/store/roomdb"
)

// E2EE gives keys, messages to devices and backups of the same server, as an API worker sees them. After Restart it must be asked for
// again.
func (w *World) E2EE() (*e2ee.Front, *e2ee.Reader) {
	db := e2eedb.NewReader(w.DB.Pool)
	host := e2ee.NewHost(e2ee.HostOptions{
		Options: w.commands(), Shards: w.Shards, DB: db, Now: time.Now,
	})
	return e2ee.NewFront(e2ee.FrontOptions{Server: Server, Shards: w.Shards, Do: host, DB: db}),
		e2ee.NewReader(e2ee.ReaderOptions{
			Server: Server, Shards: w.Shards, DB: db, Rooms: readdb.NewReader(roomdb.NewReader(w.DB.Pool), w.Shards),
		})
}
