package eventauth

import (
	"strings"

	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// PowerOf is a user's power level.
func (st *AuthState) PowerOf(user id.UserID) Level { return PowerOf(st.Create, st.Power, user) }

// PowerOf is a user's power level in a room with this create event and these power levels, nil for a room that has none.
func PowerOf(create *Create, power *PowerLevels, user id.UserID) Level {
	if create.IsCreator(user) {
		return Infinite
	}
	if power != nil {
		if level, ok := power.Users.Get(string(user)); ok {
			return level
		}
		return power.top[usersDefault]
	}
	if create != nil && create.Creator == user {
		return 100
	}
	return 0
}

// Required is the power level that sending an event takes.
func (st *AuthState) Required(eventType string, isState bool) Level {
	if st.Power != nil {
		if level, ok := st.Power.Events.Get(eventType); ok {
			return level
		}
	}
	if isState {
		return st.top(stateDefault)
	}
	return st.top(eventsDefault)
}

func (st *AuthState) top(l topLevel) Level {
	if st.Power != nil {
		return st.Power.top[l]
	}
	return topDefaults[l]
}

// InviteLevel is the level that inviting takes.
func (st *AuthState) InviteLevel() Level { return st.top(inviteLevel) }

// KickLevel is the level that removing a user takes.
func (st *AuthState) KickLevel() Level { return st.top(kickLevel) }

// BanLevel is the level that banning takes, and lifting a ban.
func (st *AuthState) BanLevel() Level { return st.top(banLevel) }

// RedactLevel is the level that redacting other users' events takes.
func (st *AuthState) RedactLevel() Level { return st.top(redactLevel) }

// NotificationLevel is the level that a notification of the given name (such as "room") takes, 50 if none is set. No rule
// reads it; push rules do.
func (st *AuthState) NotificationLevel(name string) Level {
	if st.Power != nil {
		if level, ok := st.Power.Notifications.Get(name); ok {
			return level
		}
	}
	return 50
}

// CanSend says whether a user's power suffices to send an event of a type; membership is not looked at.
func (st *AuthState) CanSend(user id.UserID, eventType string, isState bool) bool {
	return st.PowerOf(user) >= st.Required(eventType, isState)
}

// CanInvite says whether a user's power suffices to invite.
func (st *AuthState) CanInvite(user id.UserID) bool { return st.PowerOf(user) >= st.top(inviteLevel) }

// CanKick says whether a user's power suffices to remove another.
func (st *AuthState) CanKick(user, target id.UserID) bool {
	level := st.PowerOf(user)
	return level >= st.top(kickLevel) && st.PowerOf(target) < level
}

// CanBan says whether a user's power suffices to ban another.
func (st *AuthState) CanBan(user, target id.UserID) bool {
	level := st.PowerOf(user)
	return level >= st.top(banLevel) && st.PowerOf(target) < level
}

// CanRedactOthers says whether a user's power suffices to redact the events of others.
func (st *AuthState) CanRedactOthers(user id.UserID) bool {
	return st.PowerOf(user) >= st.top(redactLevel)
}

// decidePower is the rule on power levels events; level is the sender's.
func decidePower(rules *roomver.Rules, e *Reduced, st *AuthState, level Level) Rule {
	next, now := e.PowerLevels(), st.Power
	if next.invalid != Allowed {
		return next.invalid
	}
	for _, u := range next.Users {
		if st.Create.IsCreator(id.UserID(u.Name)) {
			return PowerCreators
		}
	}
	if now == nil {
		return Allowed
	}
	for i := range numTopLevels {
		had, has := now.given&(1<<i) != 0, next.given&(1<<i) != 0
		if had == has && now.top[i] == next.top[i] {
			continue
		}
		if had && now.top[i] > level {
			return PowerTopCurrent
		}
		if has && next.top[i] > level {
			return PowerTopNew
		}
	}
	current, raised := compareLevels(now.Events, next.Events, level, level+1, "")
	if rules.NotificationLevels {
		alsoCurrent, alsoRaised := compareLevels(now.Notifications, next.Notifications, level, level+1, "")
		current, raised = current || alsoCurrent, raised || alsoRaised
	}
	if current {
		return PowerEventsCurrent
	}
	if raised {
		return PowerEventsNew
	}
	current, raised = compareLevels(now.Users, next.Users, level, level, string(e.Sender))
	if current {
		return PowerUsersCurrent
	}
	if raised {
		return PowerUsersNew
	}
	return Allowed
}

// compareLevels walks two lists together and says whether an entry that is changed or removed stands at bar or above, that of
// spare excepted (a user; "" spares nobody, for an event type may be empty), and whether one that is added or changed gets more
// than level.
func compareLevels(now, next Levels, level, bar Level, spare string) (current, raised bool) {
	if level == Infinite {
		return false, false // nobody outranks a creator, and no other has a creator's level
	}
	for len(now) > 0 || len(next) > 0 {
		var order int
		switch {
		case len(now) == 0:
			order = 1
		case len(next) == 0:
			order = -1
		default:
			order = strings.Compare(now[0].Name, next[0].Name)
		}
		changed := order != 0 || now[0].Level != next[0].Level
		if order <= 0 {
			current = current || (changed && now[0].Level >= bar && (spare == "" || now[0].Name != spare))
			now = now[1:]
		}
		if order >= 0 {
			raised = raised || (changed && next[0].Level > level)
			next = next[1:]
		}
	}
	return current, raised
}
