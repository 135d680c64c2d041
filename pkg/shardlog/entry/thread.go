package entry

// ThreadSubscription makes the entry of a change of the threads that a user wants to hear of. What changed is read from the rows.
func ThreadSubscription(userID string) Entry {
	return Entry{Kind: KindThreadSubscription, Subject: userID}
}
