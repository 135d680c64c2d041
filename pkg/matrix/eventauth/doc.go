// Package eventauth decides whether an event is allowed: the authorisation rules of room versions 1 to 12, as each version's
// text writes them.
//
// An event is reduced once (Reduce) to what the rules read; from then on every decision works on reduced events and does not
// touch JSON again. The rules look at a handful of facts of the room, an AuthState: the create event, the power levels, the
// join rule, three memberships and perhaps a third-party invitation. Who calls fills it from wherever it keeps state: from
// the event's own auth_events (CheckAuthEvents, step 4 of the checks on receipt), from the state before the event (step 5),
// from the current state (step 6), or from the partial result of a state resolution.
//
// A refusal names the rule that was broken by its number in the text of the room's version, and says why in words.
//
// Guarantees: pure, no I/O, clock, randomness or shared state. Allowing an event does not allocate. Work is linear in the size
// of the event, and at most 32 signatures are verified for one event. Nothing panics, whatever the
// events hold. Reduced events, and what they point to, never change and may be read by any number of goroutines.
//
// What it does not do: verify the event's own signatures and hash. An event that comes here has passed those checks (steps 1
// to 3), the signature of an authorising server among them.
//
// Imported by everything but infra/; imports matrix/* only.
package eventauth
