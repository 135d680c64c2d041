package eventauth

// ThirdPartyWork is how many verifications VerifyThirdParty makes at most.
func ThirdPartyWork(invite *Reduced, with *ThirdPartyInvite) int {
	return len(invite.details().invite.signatures) * len(with.keys)
}
