package entry

// Outgoing makes the entry that EDUs for another server were queued. They are rows (feddb.EDU) of the proposal that has it.
func Outgoing(server string) Entry { return Entry{Kind: KindOutgoing, Subject: server} }
