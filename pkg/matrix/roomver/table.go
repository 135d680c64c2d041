package roomver

// table has one row a version. Each row is what the version before it is, with the changes that its
// page of the specification names.
//
//nolint:gochecknoglobals // immutable; handed out by pointer so that rules compare cheaply
var table = func() [12]Rules {
	v1 := Rules{
		Version:               V1,
		EventIDs:              EventIDGiven,
		LinksWithHashes:       true,
		SignedByEventIDServer: true,
		StateRes:              StateResV1,
		AliasesAuth:           true,
		RedactionAuth:         true,
		PowerLevels:           PowerLax,
		Creator:               CreatorInContent,
		Redaction:             Redaction{LegacyTopLevel: true, Aliases: true},
	}

	v2 := v1
	v2.Version = V2
	v2.StateRes = StateResV2

	v3 := v2
	v3.Version = V3
	v3.EventIDs = EventIDHashStd
	v3.LinksWithHashes = false
	v3.SignedByEventIDServer = false
	v3.RedactionAuth = false

	v4 := v3
	v4.Version = V4
	v4.EventIDs = EventIDHashURL

	v5 := v4
	v5.Version = V5
	v5.EnforceKeyValidity = true

	v6 := v5
	v6.Version = V6
	v6.StrictJSON = true
	v6.AliasesAuth = false
	v6.Redaction.Aliases = false
	v6.NotificationLevels = true
	v6.PowerLevels = PowerIntOrString

	v7 := v6
	v7.Version = V7
	v7.Knock = true

	v8 := v7
	v8.Version = V8
	v8.Restricted = true
	v8.SignedByAuthorisingServer = true
	v8.Redaction.JoinRulesAllow = true

	v9 := v8
	v9.Version = V9
	v9.Redaction.MemberAuthorised = true

	v10 := v9
	v10.Version = V10
	v10.PowerLevels = PowerInt
	v10.KnockRestricted = true

	v11 := v10
	v11.Version = V11
	v11.StrictByteLimits = true
	v11.RedactsInContent = true
	v11.Creator = CreatorIsSender
	v11.Redaction.LegacyTopLevel = false
	v11.Redaction.CreateAll = true
	v11.Redaction.MemberThirdPartySigned = true
	v11.Redaction.PowerInvite = true
	v11.Redaction.Redacts = true

	v12 := v11
	v12.Version = V12
	v12.RoomIDIsHash = true
	v12.PrivilegedCreators = true
	v12.StateRes = StateResV2_1

	return [12]Rules{v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12}
}()
