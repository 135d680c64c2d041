package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"
	yamlnode "go.yaml.in/yaml/v3"
)

// Source says where a configuration comes from.
type Source struct {
	// File is the path of the YAML file. Empty: there is none.
	File string
	// Environ is the environment, as os.Environ gives it.
	Environ []string
	// Embedded is for the all-in-one, which brings along what it is not told of.
	Embedded bool
}

// Error is one mistake in a configuration.
type Error struct {
	Source  string // file or environment variable; "" if it is about what is missing
	Line    int    // 0 if unknown
	Key     string
	Problem string
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Source != "" {
		b.WriteString(e.Source)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Load reads, merges, completes and validates: defaults, over them the file, over it the environment. Its
// error is an *Error for the first mistake, in the order of the file.
func Load(src Source) (Config, error) {
	var text []byte
	if src.File != "" {
		var err error
		if text, err = os.ReadFile(src.File); err != nil {
			return Config{}, &Error{Problem: err.Error()}
		}
	}
	return load(src, text)
}

// load is Load with the text of the file.
func load(src Source, text []byte) (Config, error) {
	c := Default(src.Embedded)
	l := loader{schema: schemaOf(&c), k: koanf.New("."), origin: map[string]Error{}}
	if err := l.file(src.File, text); err != nil {
		return Config{}, err
	}
	if err := l.environ(src.Environ); err != nil {
		return Config{}, err
	}
	if err := l.assign(); err != nil {
		return Config{}, err
	}
	if err := c.complete(src.Embedded); err != nil {
		return Config{}, err
	}
	if err := l.validate(&c, src.Embedded); err != nil {
		return Config{}, err
	}
	return c, nil
}

type loader struct {
	schema
	k      *koanf.Koanf
	origin map[string]Error // of each key that was set: where
}

func (l *loader) fail(path, format string, args ...any) error {
	e := l.origin[path]
	e.Key, e.Problem = path, fmt.Sprintf(format, args...)
	return &e
}

// file merges the YAML file. YAML is read twice: as nodes, to know the line of each key and
// to find what a map would hide, and by koanf.
func (l *loader) file(name string, text []byte) error {
	if err := l.nodes(name, text); err != nil {
		return err
	}
	values, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		return yamlError(name, err)
	}
	return l.merge(func(layer *koanf.Koanf) error { return layer.Load(rawMap(values), nil) })
}

// nodes checks the shape of the file and notes the line of each key.
func (l *loader) nodes(name string, text []byte) error {
	var doc, second yamlnode.Node
	dec := yamlnode.NewDecoder(strings.NewReader(string(text)))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // empty
	} else if err != nil {
		return yamlError(name, err)
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return &Error{Source: name, Line: second.Line, Problem: "want one YAML document, found a second"}
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return l.node(name, "", doc.Content[0])
}

func (l *loader) node(name, path string, n *yamlnode.Node) error {
	at := Error{Source: name, Line: n.Line}
	if path == "" && n.Kind == yamlnode.ScalarNode && n.Tag == "!!null" {
		return nil // only comments
	}
	if n.Kind == yamlnode.AliasNode || n.Anchor != "" {
		at.Key, at.Problem = path, "anchors and aliases are not supported"
		return &at
	}
	if n.Kind != yamlnode.MappingNode {
		if n.Tag == "!!null" {
			return nil // a key without a value says nothing
		}
		if path == "" {
			at.Problem = "want keys and values"
		} else {
			at.Key, at.Problem = path, "want a section, with keys of its own"
		}
		return &at
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		child := key.Value
		if path != "" {
			child = path + "." + child
		}
		where := Error{Source: name, Line: key.Line, Key: child}
		_, isSection := l.sections[child]
		switch {
		case strings.Contains(key.Value, ".") || !isSection && !l.known(child):
			where.Problem = "unknown key" + l.suggest(child)
			return &where
		case l.origin[child].Source != "":
			where.Problem = fmt.Sprintf("set twice, first on line %d", l.origin[child].Line)
			return &where
		}
		l.origin[child] = where
		if isSection {
			if err := l.node(name, child, value); err != nil {
				return err
			}
		} else if value.Kind == yamlnode.AliasNode || value.Anchor != "" {
			where.Problem = "anchors and aliases are not supported"
			return &where
		}
	}
	return nil
}

// known tells whether path is a key, or the file of a secret one.
func (l *loader) known(path string) bool {
	_, ok := l.leaves[path]
	return ok || l.leaves[strings.TrimSuffix(path, fileSuffix)].secret
}

// suggest names the key that was perhaps meant: the same name elsewhere.
func (l *loader) suggest(path string) string {
	name := path[strings.LastIndexByte(path, '.')+1:]
	var found []string
	for p := range l.leaves {
		if strings.HasSuffix(p, "."+name) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return ""
	}
	return ", did you mean " + found[0] + "?"
}

// environ merges the variables that begin with HEDDLE_.
func (l *loader) environ(environ []string) error {
	byEnv := map[string]leaf{}
	for path, leaf := range l.leaves {
		byEnv[leaf.env()] = leaf
		if leaf.secret {
			byEnv[envName(path+fileSuffix)] = leafFile(leaf)
		}
	}
	var unknown []string
	var fresh []leaf
	provider := env.Provider(".", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, text string) (string, any) {
			leaf, ok := byEnv[name]
			if !ok {
				if !foreign(name) {
					unknown = append(unknown, name)
				}
				return "", nil
			}
			fresh = append(fresh, leaf)
			if strings.HasSuffix(leaf.path, fileSuffix) {
				return leaf.path, text
			}
			return leaf.path, fromEnv(leaf, text)
		},
	})
	return l.merge(func(layer *koanf.Koanf) error {
		if err := layer.Load(provider, nil); err != nil {
			return err
		}
		for _, leaf := range fresh {
			l.origin[leaf.path] = Error{Source: leaf.env()}
		}
		if len(unknown) > 0 {
			slices.Sort(unknown)
			return &Error{Source: unknown[0], Problem: "unknown environment variable: no key has this name"}
		}
		return nil
	})
}

func leafFile(l leaf) leaf { return leaf{path: l.path + fileSuffix, value: l.value} }

// kubernetes matches what it puts into each container's environment for a service whose name begins with heddle.
var kubernetes = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// foreign tells whether an environment variable is none of ours in spite of its prefix.
func foreign(name string) bool {
	return name == envPrefix+"CONFIG" || strings.HasPrefix(name, envPrefix+"TEST_") || kubernetes.MatchString(name)
}

// merge loads one layer, reads its secrets' files, and puts it over what is there.
func (l *loader) merge(load func(*koanf.Koanf) error) error {
	layer := koanf.New(".")
	if err := load(layer); err != nil {
		return err
	}
	for path, leaf := range l.leaves {
		file := path + fileSuffix
		if !leaf.secret || !layer.Exists(file) || layer.Get(file) == nil {
			continue
		}
		if layer.Exists(path) && layer.Get(path) != nil {
			return l.fail(file, "%s is set too: set one of them", path)
		}
		name, ok := layer.Get(file).(string)
		if !ok {
			return l.fail(file, "want a text, got %s", describe(layer.Get(file)))
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return l.fail(file, "%s", err)
		}
		layer.Delete(file)
		l.origin[path] = l.origin[file]
		if err := layer.Set(path, strings.TrimRight(string(text), "\r\n")); err != nil {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return l.k.Merge(layer)
}

// assign sets every key that was given, in the order of the declarations.
func (l *loader) assign() error {
	paths := make([]string, 0, len(l.leaves))
	for path := range l.leaves {
		paths = append(paths, path)
	}
	slices.SortFunc(paths, func(a, b string) int { return l.origin[a].Line - l.origin[b].Line })
	for _, path := range paths {
		raw := l.k.Get(path)
		if raw == nil {
			continue
		}
		if err := assign(l.leaves[path].value, raw); err != nil {
			if l.leaves[path].secret {
				err = errors.New("want a text (put quotes around it)") // without the value
			}
			return l.fail(path, "%s", err)
		}
	}
	return nil
}

// validate asks each section, and then what only the whole can tell.
func (l *loader) validate(c *Config, embedded bool) error {
	for _, path := range l.order {
		if embedded && (path == "database" && c.Database.DSN == "" || path == "nats" && c.Nats.URL == "") {
			continue // it brings its own
		}
		v, ok := l.sections[path].Interface().(interface{ Validate() error })
		if !ok {
			continue
		}
		if err := v.Validate(); err != nil {
			key, problem, _ := strings.Cut(err.Error(), ": ")
			if path != "" {
				key = path + "." + key
			}
			return l.fail(key, "%s", problem)
		}
	}
	return nil
}

// yamlLine finds the line in an error of the YAML parser, which has it only in its text.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:unmarshal errors:\s+)?line (\d+): `)

func yamlError(name string, err error) error {
	e := &Error{Source: name, Problem: err.Error()}
	if m := yamlLine.FindStringSubmatch(e.Problem); m != nil {
		_, _ = fmt.Sscan(m[1], &e.Line)
		e.Problem = e.Problem[len(m[0]):]
	}
	e.Problem = "not YAML: " + strings.ReplaceAll(strings.TrimPrefix(e.Problem, "yaml: "), "\n", "; ")
	return e
}

// rawMap is a koanf provider of what was parsed already.
type rawMap map[string]any

func (m rawMap) Read() (map[string]any, error) { return m, nil }

func (m rawMap) ReadBytes() ([]byte, error) { return nil, errors.New("a map has no bytes") }
