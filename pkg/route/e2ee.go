package route

// e2eeRows are keys, key backup, messages to devices and dehydrated devices.
func e2eeRows() []Row {
	return []Row{
		row("uploadKeys", "POST", v3("/keys/upload", "/keys/upload/{deviceId}"), Master, ByUser, AuthGuest, RateWrite, BodyJSON, Normal),
		row("queryKeys", "POST", v3("/keys/query"), Synchrotron, ByUser, AuthGuest, RateRead, BodyJSON, Slow),
		row("claimKeys", "POST", v3("/keys/claim"), Master, ByUser, AuthGuest, RateWrite, BodyJSON, Slow),
		row("getKeysChanges", "GET", v3("/keys/changes"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("uploadCrossSigningKeys", "POST", v3("/keys/device_signing/upload", unstable+"/keys/device_signing/upload"), Master, ByUser, AuthUser, RateWrite, BodyJSON, Normal),
		row("uploadCrossSigningSignatures", "POST", v3("/keys/signatures/upload", unstable+"/keys/signatures/upload"), Master, ByUser, AuthUser, RateWrite, BodyJSON, Normal),
		row("sendToDevice", "PUT", v3("/sendToDevice/{eventType}/{txnId}"), Master, ByUser, AuthGuest, RateToDevice, BodyBulk, Normal),
		row("postRoomKeysVersion", "POST", v3("/room_keys/version"), Master, ByUser, AuthUser, RateWrite, BodyJSON, Normal),
		row("getRoomKeysVersionCurrent", "GET", v3("/room_keys/version"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("getRoomKeysVersion", "GET", v3("/room_keys/version/{version}"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("putRoomKeysVersion", "PUT", v3("/room_keys/version/{version}"), Master, ByUser, AuthUser, RateWrite, BodyJSON, Normal),
		row("deleteRoomKeysVersion", "DELETE", v3("/room_keys/version/{version}"), Master, ByUser, AuthUser, RateWrite, BodySmall, Normal),
		row("putRoomKeyBySessionId", "PUT", v3("/room_keys/keys/{roomId}/{sessionId}"), Master, ByUser, AuthUser, RateWrite, BodyJSON, Normal),
		row("getRoomKeyBySessionId", "GET", v3("/room_keys/keys/{roomId}/{sessionId}"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("deleteRoomKeyBySessionId", "DELETE", v3("/room_keys/keys/{roomId}/{sessionId}"), Master, ByUser, AuthUser, RateWrite, BodySmall, Normal),
		row("putRoomKeysByRoomId", "PUT", v3("/room_keys/keys/{roomId}"), Master, ByUser, AuthUser, RateWrite, BodyBulk, Normal),
		row("getRoomKeysByRoomId", "GET", v3("/room_keys/keys/{roomId}"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("deleteRoomKeysByRoomId", "DELETE", v3("/room_keys/keys/{roomId}"), Master, ByUser, AuthUser, RateWrite, BodySmall, Normal),
		row("putRoomKeys", "PUT", v3("/room_keys/keys"), Master, ByUser, AuthUser, RateWrite, BodyBulk, Normal),
		row("getRoomKeys", "GET", v3("/room_keys/keys"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("deleteRoomKeys", "DELETE", v3("/room_keys/keys"), Master, ByUser, AuthUser, RateWrite, BodySmall, Normal),
		// Dehydrated devices (MSC3814). Clients fetch the events by GET and, older ones, by POST.
		row("getDehydratedDevice", "GET", exact(unstable+"/org.matrix.msc3814.v1/dehydrated_device"), Synchrotron, ByUser, AuthUser, RateRead, BodyNone, Normal),
		row("putDehydratedDevice", "PUT", exact(unstable+"/org.matrix.msc3814.v1/dehydrated_device"), Master, ByUser, AuthUser, RateWrite, BodyJSON, Normal),
		row("deleteDehydratedDevice", "DELETE", exact(unstable+"/org.matrix.msc3814.v1/dehydrated_device"), Master, ByUser, AuthUser, RateWrite, BodySmall, Normal),
		row("getDehydratedDeviceEvents", "GET POST", exact(unstable+"/org.matrix.msc3814.v1/dehydrated_device/{deviceId}/events"), Synchrotron, ByUser, AuthUser, RateRead, BodySmall, Normal),
	}
}
