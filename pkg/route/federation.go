package route

// federationRows are the server-server API and the key server.
func federationRows() []Row {
	return []Row{
		row("federation.backfillRoom", "GET", exact(fedPrefix+"/v1/backfill/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Slow),
		row("federation.getMissingPreviousEvents", "POST", exact(fedPrefix+"/v1/get_missing_events/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.getContent", "GET", exact(fedPrefix+"/v1/media/download/{mediaId}"), FederationReader, ByNone, AuthFederation, RateFederation, BodyNone, Stream),
		row("federation.getContentThumbnail", "GET", exact(fedPrefix+"/v1/media/thumbnail/{mediaId}"), FederationReader, ByNone, AuthFederation, RateFederation, BodyNone, Stream),
		row("federation.getEventAuth", "GET", exact(fedPrefix+"/v1/event_auth/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Slow),
		row("federation.getRoomState", "GET", exact(fedPrefix+"/v1/state/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Slow),
		row("federation.getRoomStateIds", "GET", exact(fedPrefix+"/v1/state_ids/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Slow),
		row("federation.getEvent", "GET", exact(fedPrefix+"/v1/event/{eventId}"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.getEventByTimestamp", "GET", exact(fedPrefix+"/v1/timestamp_to_event/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.sendInviteV1", "PUT", exact(fedPrefix+"/v1/invite/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.sendInviteV2", "PUT", exact(fedPrefix+"/v2/invite/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.makeJoin", "GET", exact(fedPrefix+"/v1/make_join/{roomId}/{userId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.sendJoinV2", "PUT", exact(fedPrefix+"/v2/send_join/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Slow),
		row("key.perspectivesKeyQuery", "GET", exact(keyPrefix+"/query/{serverName}", keyPrefix+"/query/{serverName}/{keyId}"), FederationReader, ByNone, AuthNone, RateKeys, BodyNone, Normal),
		row("key.bulkPerspectivesKeyQuery", "POST", exact(keyPrefix+"/query"), FederationReader, ByNone, AuthNone, RateKeys, BodyJSON, Normal),
		row("key.getServerKey", "GET", exact(keyPrefix+"/server", keyPrefix+"/server/", keyPrefix+"/server/{keyId}"), FederationReader, ByNone, AuthNone, RateKeys, BodyNone, Normal),
		row("federation.makeKnock", "GET", exact(fedPrefix+"/v1/make_knock/{roomId}/{userId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.sendKnock", "PUT", exact(fedPrefix+"/v1/send_knock/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Slow),
		row("federation.makeLeave", "GET", exact(fedPrefix+"/v1/make_leave/{roomId}/{userId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.sendLeaveV2", "PUT", exact(fedPrefix+"/v2/send_leave/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Slow),
		row("federation.exchangeOpenIdToken", "GET", exact(fedPrefix+"/v1/openid/userinfo"), FederationReader, ByNone, AuthNone, RateFederation, BodyNone, Normal),
		row("federation.getPublicRooms", "GET", exact(fedPrefix+"/v1/publicRooms"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.queryPublicRooms", "POST", exact(fedPrefix+"/v1/publicRooms"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.queryInfo", "GET", exact(fedPrefix+"/v1/query/{queryType}"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.queryRoomDirectory", "GET", exact(fedPrefix+"/v1/query/directory"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.queryProfile", "GET", exact(fedPrefix+"/v1/query/profile"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.getSpaceHierarchy", "GET", exact(fedPrefix+"/v1/hierarchy/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Slow),
		row("federation.exchangeThirdPartyInvite", "PUT", exact(fedPrefix+"/v1/exchange_third_party_invite/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.onBindThirdPartyIdentifier", "PUT POST", exact(fedPrefix+"/v1/3pid/onbind"), FederationReader, ByNone, AuthNone, RateFederation, BodyJSON, Normal),
		row("federation.sendTransaction", "PUT", exact(fedPrefix+"/v1/send/{txnId}", fedPrefix+"/v1/send/{txnId}/"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyBulk, Slow),
		row("federation.getUserDevices", "GET", exact(fedPrefix+"/v1/user/devices/{userId}"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.claimUserEncryptionKeys", "POST", exact(fedPrefix+"/v1/user/keys/claim", fedPrefix+"/unstable/user/keys/claim"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.queryUserEncryptionKeys", "POST", exact(fedPrefix+"/v1/user/keys/query"), FederationReader, ByOrigin, AuthFederation, RateFederation, BodyJSON, Normal),
		row("federation.getVersion", "GET", exact(fedPrefix+"/v1/version"), FederationReader, ByNone, AuthNone, RateFederation, BodyNone, Normal),
		row("federation.getWellKnown", "GET", exact("/.well-known/matrix/server"), FederationReader, ByNone, AuthNone, RateKeys, BodyNone, Normal),
		// Of the specification until version 1.1: servers fall back to them.
		row("federation.sendJoinV1", "PUT", exact(fedPrefix+"/v1/send_join/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Slow),
		row("federation.sendLeaveV1", "PUT", exact(fedPrefix+"/v1/send_leave/{roomId}/{eventId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyJSON, Slow),
		// Never in the specification, and asked for by the most common server.
		row("federation.getRoomComplexity", "GET", exact(fedPrefix+"/unstable/rooms/{roomId}/complexity"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Normal),
		row("federation.getExtremities", "GET", exact(fedPrefix+"/unstable/org.matrix.msc4370/extremities/{roomId}"), FederationReader, ByRoom, AuthFederation, RateFederation, BodyNone, Normal),
	}
}
