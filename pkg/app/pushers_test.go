package app

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a client needs to switch the pusher of another device is listed with it, and what it sends back changes nothing else.
func TestPusherOfAnotherDeviceIsSwitched(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	w := f.start(t, AllInOne, "one")
	f.owns(t, "one")
	phone := w.registers(t, "alice")
	device := w.asked(t, 200, "", "GET", v3+"/account/whoami", phone, "")["device_id"]
	desk := w.asked(t, 200, "", "POST", v3+"/login", "",
		`{"type":"m.login.password","identifier":{"type":"m.id.user","user":"alice"},"password":"a-password"}`)["access_token"].(string)
	members := func(enabled string) string {
		return `{"kind":"http","app_id":"im.app","pushkey":"key","app_display_name":"App","device_display_name":"Phone","lang":"en",
			"data":{"url":"https://push.example/_matrix/push/v1/notify"}` + enabled + `}`
	}
	w.asked(t, 200, "", "POST", v3+"/pushers/set", phone, members(""))
	for _, enabled := range []bool{false, true, false} {
		w.asked(t, 200, "", "POST", v3+"/pushers/set", desk,
			members(fmt.Sprintf(`,"org.matrix.msc3881.enabled":%v,"org.matrix.msc3881.device_id":"X"`, enabled)))
		list := w.asked(t, 200, "", "GET", v3+"/pushers", desk, "")["pushers"].([]any)
		require.Len(t, list, 1)
		p := list[0].(map[string]any)
		require.Equal(t, enabled, p["org.matrix.msc3881.enabled"])
		require.Equal(t, device, p["org.matrix.msc3881.device_id"])
		require.Equal(t, "Phone", p["device_display_name"])
	}
}
