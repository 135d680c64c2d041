package config

import (
	"encoding"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	referenceFile = "../../docs/configuration.md"
	modulePath    = "github.com/heddle-im/heddle"
)

// TestReference compares docs/configuration.md with what the fields and their comments say; with -rewrite it makes it.
func TestReference(t *testing.T) {
	got := reference(t)
	if rewrite := flag.Lookup("rewrite"); rewrite != nil && rewrite.Value.String() == "true" {
		require.NoError(t, os.WriteFile(referenceFile, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(referenceFile)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run `make generate`")
}

func TestMain(m *testing.M) {
	flag.Bool("rewrite", false, "rewrite generated files")
	flag.Parse()
	os.Exit(m.Run())
}

func walkForTest(c any, leaves map[string]leaf) {
	walk(reflect.ValueOf(c).Elem(), "", func(string, reflect.Value) {}, func(l leaf, _ reflect.StructField) { leaves[l.path] = l })
}

const referenceIntro = `# Configuration

<!-- Made from the comments in pkg/config by ` + "`make generate`" + `. Do not edit. -->

One YAML file serves every kind of worker; ` + "`--config FILE` or `HEDDLE_CONFIG`" + ` names it, and ` + "`heddle config check`" + ` reads it
and says what is wrong. A key can also be set by the environment variable named beside it, which goes over the file; a list is
written there with commas. A secret can be read from a file instead: the same key with ` + "`_file`" + ` behind it (and the variable with
` + "`_FILE`" + `) names the file, and a line break at its end is left out. An unknown key is an error.

Sizes are written ` + "`100MiB`, `2GB`" + `, durations ` + "`30s`, `5m`" + `. Where a default is not one for the all-in-one (` + "`heddle run`" + `), both are given.
`

// reference writes docs/configuration.md.
func reference(t *testing.T) string {
	workers, allInOne := Default(false), Default(true)
	whole, embedded := schemaOf(&workers), schemaOf(&allInOne).leaves
	docs := fieldDocs{}
	var b strings.Builder
	b.WriteString(referenceIntro)
	texts := map[string]string{} // of each section, by path
	rows, items := map[string][]string{}, map[string][]leaf{}
	walk(reflect.ValueOf(&workers).Elem(), "",
		func(path string, v reflect.Value) {
			for i := range v.NumField() {
				f := v.Type().Field(i)
				if name := f.Tag.Get("koanf"); name != "" && f.Type.Kind() == reflect.Struct && !isText(v.Field(i)) {
					texts[strings.TrimPrefix(path+"."+name, ".")] = docs.of(t, v.Type(), f.Name, name)
				}
			}
		},
		func(l leaf, f reflect.StructField) {
			parent := l.path[:max(strings.LastIndexByte(l.path, '.'), 0)]
			def := show(l.value)
			if other := show(embedded[l.path].value); other != def {
				def += "; all-in-one " + other
			}
			kind := typeName(l.value)
			if l.secret {
				kind += ", secret"
			}
			env := "`" + l.env() + "`"
			if itemOf(l.value) != nil {
				env = ""
				items[parent] = append(items[parent], l)
			}
			rows[parent] = append(rows[parent], fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n",
				l.path, kind, def, docs.of(t, whole.sections[parent].Type(), f.Name, f.Tag.Get("koanf")), env))
		})
	for _, path := range whole.order {
		if len(rows[path]) == 0 {
			continue
		}
		title := "Top level"
		if path != "" {
			title = "`" + path + "`"
		}
		fmt.Fprintf(&b, "\n## %s\n\n", title)
		if path != "" {
			fmt.Fprintf(&b, "%s\n\n", texts[path])
		}
		b.WriteString("| key | type | default | what it says | environment |\n| --- | --- | --- | --- | --- |\n")
		b.WriteString(strings.Join(rows[path], ""))
		for _, l := range items[path] {
			itemTables(t, &b, docs, l.path, itemOf(l.value))
		}
	}
	return b.String()
}

// itemOf gives the type of a list's items if they are sections.
func itemOf(v reflect.Value) reflect.Type {
	if v.Kind() != reflect.Slice || v.Type().Elem().Kind() != reflect.Struct || isText(reflect.New(v.Type().Elem()).Elem()) {
		return nil
	}
	return v.Type().Elem()
}

// itemTables writes what an item of a list can hold.
func itemTables(t *testing.T, b *strings.Builder, docs fieldDocs, path string, item reflect.Type) {
	fmt.Fprintf(b, "\nEach item of `%s`:\n\n| key | type | what it says |\n| --- | --- | --- |\n", path)
	var inner []func()
	for i := range item.NumField() {
		f := item.Field(i)
		v, name := reflect.New(f.Type).Elem(), f.Tag.Get("koanf")
		kind := typeName(v)
		if f.Tag.Get("secret") == "true" {
			kind += ", secret"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, kind, docs.of(t, item, f.Name, name))
		if of := itemOf(v); of != nil {
			inner = append(inner, func() { itemTables(t, b, docs, path+"[]."+name, of) })
		}
	}
	for _, f := range inner {
		f()
	}
}

func typeName(v reflect.Value) string {
	if itemOf(v) != nil {
		return "list of sections"
	}
	if v.Kind() == reflect.Slice {
		return "list of " + plural(typeName(reflect.New(v.Type().Elem()).Elem()))
	}
	switch v.Interface().(type) {
	case Bytes, Budget:
		return "size"
	case Rate:
		return "allowance"
	case ThumbnailSize:
		return "size"
	case time.Duration:
		return "duration"
	case Role:
		return "role"
	case encoding.TextMarshaler:
		return "network"
	}
	switch v.Kind() {
	case reflect.Pointer:
		return typeName(reflect.New(v.Type().Elem()).Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	default:
		return "number"
	}
}

func plural(s string) string { return s + "s" }

// show writes a default as YAML would have it.
func show(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Slice && v.Len() == 0:
		return "`[]`"
	case v.Kind() == reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = "`" + fmt.Sprint(v.Index(i).Interface()) + "`"
		}
		return strings.Join(items, " ")
	case v.Kind() == reflect.Pointer && v.IsNil(), v.Kind() == reflect.String && v.Len() == 0:
		return "empty"
	}
	return "`" + fmt.Sprint(v.Interface()) + "`"
}

// fieldDocs finds the comments of fields, by "import path.Type.Field".
type fieldDocs map[string]string

// of returns the comment of a field on one line, with its first word, the field's name in Go, turned into its key or left out.
func (d fieldDocs) of(t *testing.T, owner reflect.Type, field, key string) string {
	dir, ok := strings.CutPrefix(owner.PkgPath(), modulePath+"/")
	require.True(t, ok, "%s is not ours", owner)
	if _, read := d[owner.PkgPath()]; !read {
		d[owner.PkgPath()] = ""
		d.read(t, owner.PkgPath(), filepath.Join("../..", dir))
	}
	doc := d[owner.PkgPath()+"."+owner.Name()+"."+field]
	require.NotEmpty(t, doc, "%s.%s has no comment", owner, field)
	if rest, named := strings.CutPrefix(doc, field+" "); named {
		doc = "`" + key + "` " + rest
	}
	return strings.ReplaceAll(doc, "|", `\|`)
}

func (d fieldDocs) read(t *testing.T, importPath, dir string) {
	files, err := filepath.Glob(dir + "/*.go")
	require.NoError(t, err)
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, field := range st.Fields.List {
					for _, name := range field.Names {
						d[importPath+"."+spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(field.Doc.Text()), " ")
					}
				}
			}
			return true
		})
	}
}
