package route

import (
	"slices"
	"strings"
)

// Table returns the whole table, each endpoint once. Each call returns a new copy.
func Table() []Row {
	return slices.Concat(
		syncRows(),
		roomRows(),
		e2eeRows(),
		userRows(),
		accountRows(),
		mediaRows(),
		federationRows(),
		operatorRows(),
	)
}

const (
	clientPrefix    = "/_matrix/client"
	unstable        = clientPrefix + "/unstable"
	mediaPrefix     = "/_matrix/media"
	fedPrefix       = "/_matrix/federation"
	keyPrefix       = "/_matrix/key/v2"
	synapsePrefix   = "/_synapse/admin"
	provisionPrefix = "/_synapse/mas"
	absoluteMarker  = "/_matrix/"
)

// row is one line of the table; methods are separated by spaces.
func row(name, methods string, paths []string, kind Kind, sticky Sticky, auth Auth, rate RateClass, maxBody int64, timeout Timeout) Row {
	return Row{
		Name: name, Methods: strings.Fields(methods), Paths: paths, Kind: kind, Sticky: sticky,
		Auth: auth, Rate: rate, MaxBody: maxBody, Timeout: timeout,
	}
}

// under puts each path below each of the prefixes; a path that begins with /_matrix/ stands for itself.
func under(prefixes []string, paths []string) []string {
	var out []string
	for _, p := range paths {
		if strings.HasPrefix(p, absoluteMarker) {
			out = append(out, p)
			continue
		}
		for _, prefix := range prefixes {
			out = append(out, prefix+p)
		}
	}
	return out
}

// v3 is for client endpoints that exist since before the specification's version 1.1: they are still
// called under r0.
func v3(paths ...string) []string {
	return under([]string{clientPrefix + "/v3", clientPrefix + "/r0"}, paths)
}

// v1 is for client endpoints that came later.
func v1(paths ...string) []string { return under([]string{clientPrefix + "/v1"}, paths) }

func media(paths ...string) []string {
	return under([]string{mediaPrefix + "/v3", mediaPrefix + "/r0", mediaPrefix + "/v1"}, paths)
}

func exact(paths ...string) []string { return paths }
