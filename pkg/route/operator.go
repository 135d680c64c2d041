package route

// operatorRows are the admin API and registration by shared secret, at the paths that operators' tools call.
func operatorRows() []Row {
	return []Row{
		row("adminSharedSecretRegister", "GET POST", exact(synapsePrefix+"/v1/register"), Master, ByNone, AuthNone, RateRegister, BodySmall, Normal),
		row("adminServerVersion", "GET", exact(synapsePrefix+"/v1/server_version"), Master, ByNone, AuthNone, RateNone, BodyNone, Normal),
		// What is said to everybody is a request for each: it counts against no limit.
		row("adminSendServerNotice", "POST", exact(synapsePrefix+"/v1/send_server_notice"), Master, ByUser, AuthAdmin, RateNone, BodyEvent, Normal),
		row("adminSendServerNoticeTxn", "PUT", exact(synapsePrefix+"/v1/send_server_notice/{txnId}"), Master, ByUser, AuthAdmin, RateNone, BodyEvent, Normal),
		row("admin", "GET POST PUT DELETE", exact(synapsePrefix+"/{path...}"), Master, ByUser, AuthAdmin, RateAdmin, BodyJSON, Slow),
		// What an outside authentication service has done with the accounts that it keeps. The handlers ask for the secret of the two.
		row("provisionQueryUser", "GET", exact(provisionPrefix+"/query_user"), Master, ByNone, AuthNone, RateNone, BodyNone, Normal),
		row("provisionUser", "POST", exact(provisionPrefix+"/provision_user"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionAvailable", "GET", exact(provisionPrefix+"/is_localpart_available"), Master, ByNone, AuthNone, RateNone, BodyNone, Normal),
		row("provisionDeleteUser", "POST", exact(provisionPrefix+"/delete_user"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionReactivateUser", "POST", exact(provisionPrefix+"/reactivate_user"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionSetDisplayName", "POST", exact(provisionPrefix+"/set_displayname"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionUnsetDisplayName", "POST", exact(provisionPrefix+"/unset_displayname"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionAllowReset", "POST", exact(provisionPrefix+"/allow_cross_signing_reset"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionUpsertDevice", "POST", exact(provisionPrefix+"/upsert_device"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionDeleteDevice", "POST", exact(provisionPrefix+"/delete_device"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionRenameDevice", "POST", exact(provisionPrefix+"/update_device_display_name"), Master, ByNone, AuthNone, RateNone, BodySmall, Normal),
		row("provisionSyncDevices", "POST", exact(provisionPrefix+"/sync_devices"), Master, ByNone, AuthNone, RateNone, BodyJSON, Normal),
	}
}
