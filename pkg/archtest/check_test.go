package archtest

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// source is one Go file, as far as the rules look at it.
type source struct {
	file    string // relative to the root
	pkg     string // relative to pkg/, or cmd/X
	name    string // of its package clause
	doc     string // of its package clause
	test    bool
	imports []string
}

// check reads every Go file below cmd and pkg and returns a line per broken rule.
func check(root fs.FS) ([]string, error) {
	sources, err := load(root)
	if err != nil {
		return nil, err
	}
	var faults []string
	report := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	docs := map[string][]string{}
	code := map[string]bool{}
	for _, s := range sources {
		if !s.test {
			code[s.pkg] = true
			if s.doc != "" {
				docs[s.pkg] = append(docs[s.pkg], s.file)
				if want := docPrefix(s); !strings.HasPrefix(s.doc, want) {
					report("%s: the package comment does not begin with %q", s.file, want)
				}
			}
		}
		from, ok := find(s.pkg)
		if !ok {
			report("%s: package %s has no row in pkg/archtest/table_test.go", s.file, s.pkg)
			continue
		}
		for _, part := range strings.Split(s.pkg, "/") {
			if slices.Contains(vagueNames, part) {
				report("%s: the name %q says nothing", s.file, part)
			}
		}
		for _, imp := range s.imports {
			if to, ours := strings.CutPrefix(imp, module+"/"); ours {
				if why := checkOurs(s, from, strings.TrimPrefix(to, "pkg/")); why != "" {
					report("%s: may not import %s: %s", s.file, imp, why)
				}
			} else if why := checkTheirs(s, from, imp); why != "" {
				report("%s: may not import %s: %s", s.file, imp, why)
			}
		}
	}
	for pkg := range code {
		if n := len(docs[pkg]); n != 1 {
			report("%s: %d package comments, want exactly one %v", pkg, n, docs[pkg])
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults), nil
}

// checkOurs says why s may not import our package to, or "".
func checkOurs(s source, from row, to string) string {
	target, ok := find(to)
	switch {
	case !ok:
		return "it has no row in pkg/archtest/table_test.go"
	case target.pkg == from.pkg:
		return "" // its own internal parts, or an external test
	case target.pkg == "archtest":
		return "nobody imports it"
	case s.test && strings.HasSuffix(s.name, "_test"):
		return "" // tests that span layers
	case s.test && strings.HasPrefix(target.pkg, "testkit/"):
		return ""
	case strings.HasPrefix(from.pkg, "testkit/"):
		if target.layer == layerCmd || target.pkg == "app" && !matches(target.importers, from) {
			return "of testkit only fleettest and fedtest start whole workers"
		}
		return ""
	case strings.HasPrefix(target.pkg, "testkit/"):
		return "it is for tests"
	case from.layer < target.layer:
		return fmt.Sprintf("upward, from layer %d to %d", from.layer, target.layer)
	case from.layer == target.layer && !matchesByName(target.importers, from):
		return fmt.Sprintf("sideways, in layer %d", from.layer)
	case !matches(target.importers, from):
		return fmt.Sprintf("only %v may", target.importers)
	}
	return ""
}

// checkTheirs says why s may not import imp, a package of the standard library or of
// another module, or "".
func checkTheirs(s source, from row, imp string) string {
	if s.test || strings.HasPrefix(from.pkg, "testkit/") {
		return ""
	}
	if strings.HasPrefix(from.pkg, "matrix/") {
		outside := strings.Contains(strings.SplitN(imp, "/", 2)[0], ".")
		switch {
		case outside && !anyBelow(pureOutside, imp):
			return "the core is pure, and uses only what pureOutside names"
		case anyBelow(pureBans, imp) && !anyBelow(purePardons, imp):
			return "the core is pure"
		}
	}
	var best *fence
	for i, f := range fences {
		if below(f.imports, imp) && (best == nil || len(f.imports) > len(best.imports)) {
			best = &fences[i]
		}
	}
	if best != nil && !matches(best.users, from) {
		return best.why
	}
	return ""
}

// find returns the row of a package: its own, or that of the package whose internal part it is.
func find(pkg string) (row, bool) {
	var best row
	for _, r := range table {
		rest, ok := strings.CutPrefix(pkg, r.pkg)
		if ok && (rest == "" || strings.HasPrefix(rest, "/internal/")) && len(r.pkg) > len(best.pkg) {
			best = r
		}
	}
	return best, best.pkg != ""
}

func matches(patterns []string, from row) bool {
	return matchesByName(patterns, from) || slices.ContainsFunc(patterns, func(p string) bool {
		n, err := strconv.Atoi(strings.TrimPrefix(p, "@"))
		return strings.HasPrefix(p, "@") && err == nil && from.layer >= n
	})
}

func matchesByName(patterns []string, from row) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		return p == from.pkg || strings.HasSuffix(p, "/") && strings.HasPrefix(from.pkg, p)
	})
}

func below(prefix, imp string) bool { return imp == prefix || strings.HasPrefix(imp, prefix+"/") }

func anyBelow(prefixes []string, imp string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return below(p, imp) })
}

func docPrefix(s source) string {
	if s.name == "main" {
		return "Command " + path.Base(s.pkg) + " "
	}
	return "Package " + s.name + " "
}

// load parses the package clause and the imports of every Go file below cmd and pkg,
// whatever its build constraints.
func load(root fs.FS) ([]source, error) {
	var sources []source
	for _, top := range []string{"cmd", "pkg"} {
		err := fs.WalkDir(root, top, func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), "_")):
				return fs.SkipDir
			case d.IsDir() || path.Ext(file) != ".go":
				return nil
			}
			text, err := fs.ReadFile(root, file)
			if err != nil {
				return err
			}
			s, err := parse(file, text)
			if err != nil {
				return err
			}
			sources = append(sources, s)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", top, err)
		}
	}
	return sources, nil
}

func parse(file string, text []byte) (source, error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return source{}, err
	}
	s := source{
		file: file,
		pkg:  strings.TrimPrefix(path.Dir(file), "pkg/"),
		name: f.Name.Name,
		doc:  strings.TrimSpace(f.Doc.Text()),
		test: strings.HasSuffix(file, "_test.go"),
	}
	for _, imp := range f.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			return source{}, fmt.Errorf("%s: %w", file, err)
		}
		s.imports = append(s.imports, p)
	}
	return s, nil
}
