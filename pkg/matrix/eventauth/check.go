package eventauth

import (
	"github.com/heddle-im/heddle/pkg/matrix/id"
	"github.com/heddle-im/heddle/pkg/matrix/roomver"
)

// Check decides whether an event is allowed in a room in the given state: nil if it is, and else a *RefusalError.
//
// It holds every rule but those on the event's own auth_events, which are CheckAuthEvents', for they do not depend on the
// state.
func Check(rules *roomver.Rules, e *Reduced, st *AuthState) error {
	if r := Decide(rules, e, st); r != Allowed {
		return r.Err(rules)
	}
	return nil
}

// Decide is Check for who needs no error: it does not allocate, whatever it decides.
func Decide(rules *roomver.Rules, e *Reduced, st *AuthState) Rule {
	if e.Kind == KindCreate {
		if e.flags.has(flagHasPrev) {
			return CreatePrevEvents
		}
		return e.Create().invalid
	}
	c := st.Create
	if c == nil || c.RoomID != e.RoomID {
		switch {
		case rules.RoomIDIsHash:
			return RoomCreate
		case c == nil:
			return AuthNoCreate
		}
		return AuthRoom
	}
	if c.NoFederate && e.Sender.Server() != c.Sender.Server() {
		return Federate
	}
	if e.Kind == KindAliases && rules.AliasesAuth {
		if !e.IsState() {
			return AliasesStateKey
		}
		if e.StateKey != string(e.Sender.Server()) {
			return AliasesDomain
		}
		return Allowed
	}
	if e.Kind == KindMember {
		return decideMember(rules, e, st)
	}
	if st.Sender != MembershipJoin {
		return SenderNotJoined
	}
	level := st.PowerOf(e.Sender)
	if e.Kind == KindThirdPartyInvite {
		if level < st.top(inviteLevel) {
			return ThirdPartyPower
		}
		return Allowed
	}
	if st.Required(e.Type, e.IsState()) > level {
		return RequiredPower
	}
	if e.IsState() && len(e.StateKey) > 0 && e.StateKey[0] == '@' && e.StateKey != string(e.Sender) {
		return UserStateKey
	}
	switch {
	case e.Kind == KindPowerLevels:
		return decidePower(rules, e, st, level)
	case e.Kind == KindRedaction && rules.RedactionAuth:
		return decideRedaction(e, st, level)
	}
	return Allowed
}

func decideRedaction(e *Reduced, st *AuthState, level Level) Rule {
	if level >= st.top(redactLevel) {
		return Allowed
	}
	if target := e.details().redacts; target != "" && target.Server() == e.ID.Server() {
		return Allowed
	}
	return RedactionPower
}

func decideMember(rules *roomver.Rules, e *Reduced, st *AuthState) Rule {
	if !e.IsState() || e.Membership == MembershipMissing {
		return MemberMalformed
	}
	if e.flags.has(flagNotCosigned) || (e.flags.has(flagAuthoriser) && e.Authoriser().Server() == "") {
		return MemberAuthoriserSignature
	}
	switch e.Membership {
	case MembershipJoin:
		return decideJoin(rules, e, st)
	case MembershipInvite:
		return decideInvite(e, st)
	case MembershipLeave:
		return decideLeave(rules, e, st)
	case MembershipBan:
		if st.Sender != MembershipJoin {
			return BanSender
		}
		if level := st.PowerOf(e.Sender); level >= st.top(banLevel) && st.PowerOf(id.UserID(e.StateKey)) < level {
			return Allowed
		}
		return BanPower
	case MembershipKnock:
		if rules.Knock {
			return decideKnock(rules, e, st)
		}
	default:
	}
	return MemberUnknown
}

func decideJoin(rules *roomver.Rules, e *Reduced, st *AuthState) Rule {
	if e.more != nil && e.more.onlyPrev != "" && e.more.onlyPrev == st.Create.ID && e.StateKey == string(st.Create.Creator) {
		return Allowed
	}
	if string(e.Sender) != e.StateKey {
		return JoinSender
	}
	if st.Target == MembershipBan {
		return JoinBanned
	}
	invited := st.Target == MembershipInvite || st.Target == MembershipJoin
	switch rule := st.JoinRule; {
	case rule == JoinRulePublic:
		return Allowed
	case rule == JoinRuleInvite, rule == JoinRuleKnock && rules.Knock:
		if invited {
			return Allowed
		}
		return JoinNotInvited
	case rule == JoinRuleRestricted && rules.Restricted, rule == JoinRuleKnockRestricted && rules.KnockRestricted:
		if invited {
			return Allowed
		}
		by := e.Authoriser()
		if by == "" || st.Authoriser != MembershipJoin || st.PowerOf(by) < st.top(inviteLevel) {
			return JoinAuthoriser
		}
		return Allowed
	}
	return JoinRuleRefuses
}

func decideInvite(e *Reduced, st *AuthState) Rule {
	if e.flags.has(flagThirdParty) {
		s := e.more.invite
		switch {
		case st.Target == MembershipBan:
			return ThirdPartyBanned
		case !s.present:
			return ThirdPartyUnsigned
		case !s.complete:
			return ThirdPartyIncomplete
		case s.mxid != e.StateKey:
			return ThirdPartyUser
		case st.ThirdParty == nil || st.ThirdParty.Token != s.token:
			return ThirdPartyUnknown
		case st.ThirdParty.Sender != e.Sender:
			return ThirdPartySender
		}
		verify := st.VerifyThirdParty
		if verify == nil {
			verify = VerifyThirdParty
		}
		if !verify(e, st.ThirdParty) {
			return ThirdPartySignature
		}
		return Allowed
	}
	if st.Sender != MembershipJoin {
		return InviteSender
	}
	if st.Target == MembershipJoin || st.Target == MembershipBan {
		return InviteTarget
	}
	if st.PowerOf(e.Sender) < st.top(inviteLevel) {
		return InvitePower
	}
	return Allowed
}

func decideLeave(rules *roomver.Rules, e *Reduced, st *AuthState) Rule {
	if string(e.Sender) == e.StateKey {
		switch st.Target {
		case MembershipInvite, MembershipJoin:
			return Allowed
		case MembershipKnock:
			if rules.Knock {
				return Allowed
			}
		default:
		}
		return LeaveOwn
	}
	if st.Sender != MembershipJoin {
		return LeaveSender
	}
	level := st.PowerOf(e.Sender)
	if st.Target == MembershipBan && level < st.top(banLevel) {
		return LeaveBanned
	}
	if level >= st.top(kickLevel) && st.PowerOf(id.UserID(e.StateKey)) < level {
		return Allowed
	}
	return LeavePower
}

func decideKnock(rules *roomver.Rules, e *Reduced, st *AuthState) Rule {
	if st.JoinRule != JoinRuleKnock && (st.JoinRule != JoinRuleKnockRestricted || !rules.KnockRestricted) {
		return KnockJoinRule
	}
	if string(e.Sender) != e.StateKey {
		return KnockSender
	}
	switch st.Target {
	case MembershipBan, MembershipInvite, MembershipJoin:
		return KnockMembership
	default:
		return Allowed
	}
}
