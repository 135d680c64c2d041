package route

// operatorRows are the admin API and registration by shared secret, at the paths that operators' tools call.
func operatorRows() []Row {
	return []Row{
		row("adminSharedSecretRegister", "GET POST", exact(synapsePrefix+"/v1/register"), Master, ByNone, AuthNone, RateRegister, BodySmall, Normal),
		row("adminServerVersion", "GET", exact(synapsePrefix+"/v1/server_version"), Master, ByNone, AuthNone, RateNone, BodyNone, Normal),
		row("admin", "GET POST PUT DELETE", exact(synapsePrefix+"/{path...}"), Master, ByUser, AuthAdmin, RateAdmin, BodyJSON, Slow),
	}
}
