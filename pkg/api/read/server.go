package read

import (
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// versions says which versions of the specification are spoken. Clients choose what they use by it, so it grows with what is
// served: what is not served yet is not announced.
func (a *Accounts) versions(w http.ResponseWriter, _ *http.Request) error {
	return httpx.WriteJSON(w, http.StatusOK, struct {
		Versions []string        `json:"versions"`
		Unstable map[string]bool `json:"unstable_features"`
	}{
		Versions: []string{
			"r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
		},
		Unstable: map[string]bool{
			"org.matrix.label_based_filtering":               true,
			"org.matrix.msc2285.stable":                      true,
			"org.matrix.msc3440.stable":                      true,
			"org.matrix.msc3771":                             true,
			"org.matrix.msc4028":                             true,
			"org.matrix.msc3874":                             true,
			"org.matrix.msc3981":                             true,
			"org.matrix.msc3827.stable":                      true,
			"uk.half-shot.msc2666.query_mutual_rooms":        true,
			"uk.half-shot.msc2666.query_mutual_rooms.stable": true,
			"uk.tcpip.msc4133":                               true,
			"uk.tcpip.msc4133.stable":                        true,
			"org.matrix.msc4108":                             a.o.Meets,
			"org.matrix.msc4140":                             true,
			"org.matrix.msc4155":                             true,
			"org.matrix.msc4222":                             true,
			"org.matrix.msc4380.stable":                      true,
			"org.matrix.msc4306":                             true,
			"org.matrix.simplified_msc3575":                  true,
		},
	})
}

func (a *Accounts) capabilities(w http.ResponseWriter, _ *http.Request) error {
	available := make(map[string]string)
	for _, v := range roomver.All() {
		available[string(v.Version)] = "stable"
	}
	type enabled struct {
		Enabled bool `json:"enabled"`
	}
	return httpx.WriteJSON(w, http.StatusOK, map[string]any{"capabilities": map[string]any{
		"m.room_versions":   map[string]any{"default": roomver.Default, "available": available},
		"m.change_password": enabled{!a.o.Delegated}, "m.set_displayname": enabled{true}, "m.set_avatar_url": enabled{true},
		"m.3pid_changes": enabled{a.o.Email && !a.o.Delegated}, "m.get_login_token": enabled{!a.o.Delegated}, "m.profile_fields": enabled{true},
	}})
}
