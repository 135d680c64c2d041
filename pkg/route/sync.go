package route

// syncRows are the endpoints by which a client follows the server.
func syncRows() []Row {
	return []Row{
		row("sync", "GET", v3("/sync"), Synchrotron, ByUser, AuthGuest, RateSync, BodyNone, LongPoll),
		row("slidingSync", "POST", exact(unstable+"/org.matrix.simplified_msc3575/sync"), Synchrotron, ByUser, AuthUser, RateSync, BodyJSON, LongPoll),
		row("getEvents", "GET", v3("/events"), Synchrotron, ByUser, AuthGuest, RateSync, BodyNone, LongPoll),
		row("initialSync", "GET", v3("/initialSync"), Synchrotron, ByUser, AuthUser, RateSync, BodyNone, Slow),
		row("getOneEvent", "GET", v3("/events/{eventId}"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("roomInitialSync", "GET", v3("/rooms/{roomId}/initialSync"), Synchrotron, ByUser, AuthGuest, RateSync, BodyNone, Slow),
		row("getNotifications", "GET", v3("/notifications"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
	}
}
