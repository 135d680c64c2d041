package appservice

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Registration is what a registration file says of one application service (spec: "Registration"). Keys that are not known are left
// alone: every bridge adds its own.
type Registration struct {
	ID string
	// URL is where it is told of events; empty: nowhere.
	URL             string
	ASToken         string
	HSToken         string
	SenderLocalpart string
	Users           []Namespace
	Aliases         []Namespace
	Rooms           []Namespace
	// RateLimited says that the users it acts for are limited like everybody else. The sender never is.
	RateLimited bool
	// Protocols are the networks that it knows of.
	Protocols []string
	// Ephemeral says that it wants to be told of typing, receipts and presence.
	Ephemeral bool
	// ToDevice says that it wants messages to its users' devices (MSC4203), as who asks for what encryption needs does, or for ephemeral data by
	// the key from when these were one thing.
	ToDevice bool
	// Encryption says that it wants what its users' devices need for encryption: changed devices and counts of keys (MSC3202).
	Encryption bool
}

// Namespace is a set of ids.
type Namespace struct {
	Exclusive bool
	Regex     *regexp.Regexp
}

// Bounds of a registration.
const (
	maxFile       = 1 << 20
	maxID         = 255
	maxToken      = 1 << 10
	maxNamespaces = 1000
)

// file is how a registration is written.
type file struct {
	ID              *string    `yaml:"id"`
	URL             yaml.Node  `yaml:"url"`
	ASToken         *string    `yaml:"as_token"`
	HSToken         *string    `yaml:"hs_token"`
	SenderLocalpart *string    `yaml:"sender_localpart"`
	Namespaces      *fileSpace `yaml:"namespaces"`
	RateLimited     *bool      `yaml:"rate_limited"`
	Protocols       []string   `yaml:"protocols"`
	Ephemeral       bool       `yaml:"receive_ephemeral"`
	OldEphemeral    bool       `yaml:"de.sorunome.msc2409.push_ephemeral"`
	OlderEphemeral  bool       `yaml:"push_ephemeral"`
	Encryption      bool       `yaml:"org.matrix.msc3202"`
}

type fileSpace struct {
	Users   []fileNamespace `yaml:"users"`
	Aliases []fileNamespace `yaml:"aliases"`
	Rooms   []fileNamespace `yaml:"rooms"`
}

type fileNamespace struct {
	Exclusive *bool   `yaml:"exclusive"`
	Regex     *string `yaml:"regex"`
}

// Load reads registration files. Its error names the file, and says of its content nothing that is secret.
func Load(paths []string) ([]Registration, error) {
	out := make([]Registration, 0, len(paths))
	ids, tokens := map[string]string{}, map[string]string{}
	for _, path := range paths {
		r, err := load(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if other, taken := ids[r.ID]; taken {
			return nil, fmt.Errorf("%s: id: %q is that of %s too", path, r.ID, other)
		}
		if other, taken := tokens[r.ASToken]; taken {
			return nil, fmt.Errorf("%s: as_token: is that of %s too", path, other)
		}
		ids[r.ID], tokens[r.ASToken] = path, path
		out = append(out, r)
	}
	return out, nil
}

func load(path string) (Registration, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		return Registration{}, errors.New("is too large for a registration")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return Registration{}, err
	}
	return Parse(text)
}

// Parse reads a registration.
func Parse(text []byte) (Registration, error) {
	var f file
	if err := yaml.Unmarshal(text, &f); err != nil {
		return Registration{}, oneLine(err)
	}
	r := Registration{
		RateLimited: f.RateLimited == nil || *f.RateLimited, Protocols: f.Protocols,
		Ephemeral: f.Ephemeral || f.OldEphemeral || f.OlderEphemeral, ToDevice: f.OldEphemeral || f.OlderEphemeral || f.Encryption,
		Encryption: f.Encryption,
	}
	for _, v := range []struct {
		key string
		in  *string
		out *string
		max int
	}{
		{"id", f.ID, &r.ID, maxID},
		{"as_token", f.ASToken, &r.ASToken, maxToken},
		{"hs_token", f.HSToken, &r.HSToken, maxToken},
		{"sender_localpart", f.SenderLocalpart, &r.SenderLocalpart, maxID},
	} {
		switch {
		case v.in == nil || *v.in == "":
			return r, fmt.Errorf("%s: must be set", v.key)
		case len(*v.in) > v.max:
			return r, fmt.Errorf("%s: is longer than %d bytes", v.key, v.max)
		case strings.ContainsFunc(*v.in, func(c rune) bool { return c < ' ' || c == 0x7f }):
			return r, fmt.Errorf("%s: holds a control character", v.key)
		}
		*v.out = *v.in
	}
	if strings.ContainsAny(r.ASToken+r.HSToken, " \t") {
		return r, errors.New("as_token, hs_token: must not hold a space")
	}
	var err error
	if r.URL, err = address(&f.URL); err != nil {
		return r, fmt.Errorf("url: %w", err)
	}
	if f.Namespaces == nil {
		return r, errors.New("namespaces: must be set")
	}
	for _, v := range []struct {
		key string
		in  []fileNamespace
		out *[]Namespace
	}{{"users", f.Namespaces.Users, &r.Users}, {"aliases", f.Namespaces.Aliases, &r.Aliases}, {"rooms", f.Namespaces.Rooms, &r.Rooms}} {
		if *v.out, err = namespaces(v.in); err != nil {
			return r, fmt.Errorf("namespaces.%s: %w", v.key, err)
		}
	}
	for i, p := range r.Protocols {
		if p == "" || len(p) > maxID || strings.ContainsAny(p, "/|") {
			return r, fmt.Errorf("protocols: item %d is no name of a protocol", i+1)
		}
	}
	return r, nil
}

// address reads the url, which must be there and may be null.
func address(n *yaml.Node) (string, error) {
	switch {
	case n.IsZero():
		return "", errors.New("must be set; null if the application service is told nothing")
	case n.Kind != yaml.ScalarNode || n.Tag != "!!str" && n.Tag != "!!null":
		return "", errors.New("must be a URL or null")
	case n.Tag == "!!null" || n.Value == "":
		return "", nil
	}
	u, err := url.Parse(n.Value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", errors.New("must be a URL (http://… or https://…) or null")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("must have no query and no fragment")
	}
	return strings.TrimRight(n.Value, "/"), nil
}

func namespaces(in []fileNamespace) ([]Namespace, error) {
	if len(in) > maxNamespaces {
		return nil, fmt.Errorf("there are more than %d", maxNamespaces)
	}
	out := make([]Namespace, len(in))
	for i, n := range in {
		if n.Regex == nil {
			return nil, fmt.Errorf("item %d: regex: must be set", i+1)
		}
		if n.Exclusive == nil {
			return nil, fmt.Errorf("item %d: exclusive: must be true or false", i+1)
		}
		re, err := regexp.Compile(`^(?:` + *n.Regex + `)`)
		if err != nil {
			return nil, fmt.Errorf("item %d: regex: %w", i+1, badRegex(*n.Regex, err))
		}
		out[i] = Namespace{Exclusive: *n.Exclusive, Regex: re}
	}
	return out, nil
}

// badRegex says what is wrong with an expression as it was written.
func badRegex(text string, err error) error {
	if _, own := regexp.Compile(text); own != nil {
		err = own
	}
	return oneLine(err)
}

// oneLine gives an error whose text is one line: it goes into a message that is one.
func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}
