package write

import (
	"context"
	"net/http"

	"github.com/heddle-im/heddle/pkg/api/auth"
	"github.com/heddle-im/heddle/pkg/api/httpx"
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/service/account"
)

// Agreements refuses users who have not agreed to the terms of this server. It is *account.Agreements.
type Agreements interface {
	Check(ctx context.Context, u id.UserID) error
}

// needsConsent are the endpoints by which users bring something into the world: they wait until the terms are agreed to. To read, to leave, to look
// after the own account and keys, to log in and out, and to end the account is open to everybody.
func needsConsent() []string {
	return []string{
		"createRoom", "joinRoom", "joinRoomById", "knockRoom", "inviteUser", "kick", "ban", "unban", "upgradeRoom",
		"sendMessage", "setRoomStateWithKey", "redactEvent", "sendDelayedEvent",
		"setRoomAlias", "setRoomVisibilityOnDirectory", "uploadContent", "uploadContentToMXC", "createContent",
	}
}

// Consenting has the endpoints that bring something into the world refuse users who have not agreed. Application services agree with their operator.
func Consenting(a Agreements, all httpx.Handlers) {
	for _, name := range needsConsent() {
		h := all[name]
		if h == nil {
			continue
		}
		all[name] = func(w http.ResponseWriter, r *http.Request) error {
			if c := auth.Must(r.Context()); c.Service == nil && c.Kind != account.KindAppservice {
				if err := a.Check(r.Context(), c.UserID); err != nil {
					return err
				}
			}
			return h(w, r)
		}
	}
}
