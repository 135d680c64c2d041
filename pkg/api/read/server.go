package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// versions says which versions of the specification are spoken. Clients choose what they use by it, so it grows with what is
// served: what is not served yet is not announced. Features that are part of an announced version are told under their older
// names too, where there are clients that look for these alone.
func (a *Accounts) versions(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Versions []string        `json:"versions"`
		Unstable map[string]bool `json:"unstable_features"`
	}{
		Versions: []string{
			"r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
			"v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
		},
		Unstable: map[string]bool{
			"com.beeper.msc4169":                             true,
			"org.matrix.e2e_cross_signing":                   true,
			"org.matrix.label_based_filtering":               true,
			"org.matrix.msc2285.stable":                      true,
			"org.matrix.msc2432":                             true,
			"org.matrix.msc3030":                             true,
			"org.matrix.msc3030.stable":                      true,
			"org.matrix.msc3391":                             true,
			"org.matrix.msc3440.stable":                      true,
			"org.matrix.msc3771":                             true,
			"org.matrix.msc3827.stable":                      true,
			"org.matrix.msc3874":                             true,
			"org.matrix.msc3881":                             true,
			"org.matrix.msc3882":                             !a.o.Delegated,
			"org.matrix.msc3912":                             true,
			"org.matrix.msc3916.stable":                      true,
			"org.matrix.msc3981":                             true,
			"org.matrix.msc4028":                             true,
			"org.matrix.msc4108":                             a.o.Meets,
			"org.matrix.msc4140":                             true,
			"org.matrix.msc4143":                             true,
			"org.matrix.msc4155":                             true,
			"org.matrix.msc4222":                             true,
			"org.matrix.msc4306":                             true,
			"org.matrix.msc4380.stable":                      true,
			"org.matrix.simplified_msc3575":                  true,
			"uk.half-shot.msc2666.query_mutual_rooms":        true,
			"uk.half-shot.msc2666.query_mutual_rooms.stable": true,
			"uk.tcpip.msc4133":                               true,
			"uk.tcpip.msc4133.stable":                        true,
		},
	})
}

func (a *Accounts) capabilities(w http.ResponseWriter, r *http.Request) error {
	available := make(map[string]string)
	for _, v := range roomver.All() {
		available[string(v.Version)] = "stable"
	}
	type enabled struct {
		Enabled bool `json:"enabled"`
	}
	all := map[string]any{
		"m.room_versions":   map[string]any{"default": roomver.Default, "available": available},
		"m.change_password": enabled{!a.o.Delegated}, "m.set_displayname": enabled{true}, "m.set_avatar_url": enabled{true},
		"m.3pid_changes": enabled{a.o.Email && !a.o.Delegated}, "m.get_login_token": enabled{!a.o.Delegated},
		"m.profile_fields": enabled{true}, "uk.tcpip.msc4133.profile_fields": enabled{true},
		"io.element.msc4452.preview_url": enabled{a.o.Previews},
		"org.matrix.msc4140.delayed_events": map[string]any{
			"max_delay_ms": a.o.Delays.MaxDelay.Milliseconds(), "max_scheduled": a.o.Delays.MaxWaiting,
		},
	}
	if auth.Must(r.Context()).Admin {
		all["m.account_moderation"] = map[string]bool{"lock": true, "suspend": true}
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"capabilities": all})
}
