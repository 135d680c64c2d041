package room_test

import (
	"testing"

	"github.com/heddle-im/heddle/pkg/service/room"
	"github.com/heddle-im/heddle/pkg/testkit/roomtest"
)

func TestContract(t *testing.T) {
	roomtest.Contract(t, func(_ *testing.T, w *roomtest.World) room.Writer { return w.Host })
}
