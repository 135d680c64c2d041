// Package stateres holds a room's state and resolves the states of its forks: the algorithms of room version 1, of 2 to 11,
// and of 12 (v2.1).
//
// State is the map from (type, state key) to event: immutable, small, sharing structure between forks. Graph is what a room's
// resolutions work on: its auth events as a dense graph of small integers, which is built once from the events that a Source
// hands over in bulk, kept, and grown as later resolutions need more. In it an event's auth events always have smaller numbers
// than the event, so that auth chains, their differences and the conflicted subgraph are single sweeps over an array, and no
// path is ever walked on its own.
//
// Guarantees: pure, no I/O of its own, no clock, randomness or shared state. The result depends on the set of states alone,
// not on their order, on repetitions, or on what the graph holds already. With n events in the graph and c differences between
// the states, one resolution takes O(n + c log c) steps, whatever the shape of the chains. Where one of the states has changed by little since
// the last resolution, and power levels and join rules stay what they were, the change is followed through what was found then: in as many steps
// as it touches events, times log c, and for a kick or a ban one more for each event that is ordered by power. Events that cite themselves, directly
// or in a circle, and events of another room are never applied and never authorise another; an event that the Source does not
// know is an error. Nothing panics on them.
//
// A State may be read by any number of goroutines; a Graph belongs to one at a time.
//
// Imported by everything but infra/; imports matrix/* only.
package stateres
