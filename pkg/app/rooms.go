package app

import (
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/fleet/rpc"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/room"
)

func roomHandlers(_ *shared, _ *account.Front) (httpx.Handlers, error) { return nil, nil }

func roomRPC(_ *room.Host) map[string]rpc.Handler { return nil }
