// Package push knows what users want to be notified of, lists what they were notified of, and tells push gateways.
//
// [Preferences] hears changes of push rules and ignored users in the log, for the writers of rooms, who judge each event by them. A
// [Sender] is a durable consumer of the log, under a role that one worker holds at a time; see there for what it guarantees.
//
// It may be imported by api/ and the composition root.
package push
