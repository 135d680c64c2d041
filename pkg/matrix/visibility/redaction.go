package visibility

import "github.com/heddle-im/heddle/pkg/matrix/event"

// RedactionApplies tells whether an accepted redaction takes effect on an event of the same room that it
// names: whether the event must be redacted, and the redaction shown to clients.
//
// senderPower is the redaction's sender's power and redactLevel the redact level, both by the state
// before the redaction; a creator's infinite power is the largest int64. In room versions 1 and 2 the
// authorisation rules have already decided.
func RedactionApplies(redaction, target *event.Event, senderPower, redactLevel int64) bool {
	if redaction.Type() != event.TypeRedaction || redaction.Redacts() != target.EventID() ||
		redaction.RoomID() != target.RoomID() || redaction.EventID() == target.EventID() {
		return false
	}
	if redaction.Rules().RedactionAuth {
		return true
	}
	if senderPower >= redactLevel {
		return true
	}
	server := redaction.Sender().Server()
	return server != "" && server == target.Sender().Server()
}
