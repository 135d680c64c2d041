package roomrpc_test

import (
	"context"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/infra/bus"
	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/service/room/roomrpc"
	"github.com/heddle-im/heddle/pkg/shardlog/shard"
	"github.com/heddle-im/heddle/pkg/store/leasedb"
	"github.com/heddle-im/heddle/pkg/testkit/bustest"
	"github.com/heddle-im/heddle/pkg/testkit/pgtest"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Run(m)) }

// What the local host promises holds over NATS, and over HTTP when there is no NATS.
func TestContract(t *testing.T) {
	for _, way := range []string{"nats", "http"} {
		t.Run(way, func(t *testing.T) {
			roomtest.Contract(t, func(t *testing.T, w *roomtest.World) room.Writer {
				var serverBus, clientBus *bus.Bus
				if way == "nats" {
					nats := bustest.Listen(t)
					serverBus, clientBus = nats.Connect(), nats.Connect()
				}
				secret := []byte("secret")
				server := rpc.NewServer(rpc.ServerConfig{Bus: serverBus, Secret: secret, Handlers: roomrpc.Handlers(w.Host)})
				hs := httptest.NewServer(server)
				t.Cleanup(hs.Close)
				w.Exec(`UPDATE shard_lease SET address = $1`, strings.TrimPrefix(hs.URL, "http://"))
				for s := range shard.ID(w.Shards.Count()) {
					require.NoError(t, server.Open(w.Ctx(), s))
					t.Cleanup(func() { server.Close(context.Background(), s) })
				}
				client := rpc.NewClient(rpc.ClientConfig{Bus: clientBus, Owners: leasedb.NewDB(w.DB.DB), Secret: secret})
				t.Cleanup(client.Close)
				return roomrpc.NewClient(client, w.Shards)
			})
		})
	}
}
