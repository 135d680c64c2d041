package config

import (
	"encoding"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	envPrefix  = "HEDDLE_"
	fileSuffix = "_file"
)

// leaf is one key that can be set.
type leaf struct {
	path   string // "listen.tls.cert"
	value  reflect.Value
	secret bool
}

// env is the environment variable that sets the key.
func (l leaf) env() string { return envName(l.path) }

func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// walk calls section for each struct, outermost first and with "" for the root, and key for
// each leaf, in the order of the declarations. Fields without a koanf tag are not keys.
func walk(v reflect.Value, path string, section func(path string, v reflect.Value), key func(leaf, reflect.StructField)) {
	section(path, v)
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Tag.Get("koanf")
		if name == "" || name == "-" {
			continue
		}
		if path != "" {
			name = path + "." + name
		}
		if f := v.Field(i); field.Type.Kind() == reflect.Struct && !isText(f) {
			walk(f, name, section, key)
		} else {
			key(leaf{path: name, value: f, secret: field.Tag.Get("secret") == "true"}, field)
		}
	}
}

// schema is what can be set in a Config, by path.
type schema struct {
	leaves   map[string]leaf
	sections map[string]reflect.Value
	order    []string // of sections
}

func schemaOf(c *Config) schema {
	s := schema{leaves: map[string]leaf{}, sections: map[string]reflect.Value{}}
	walk(reflect.ValueOf(c).Elem(), "",
		func(path string, v reflect.Value) {
			s.sections[path] = v
			s.order = append(s.order, path)
		},
		func(l leaf, _ reflect.StructField) { s.leaves[l.path] = l })
	return s
}

func isText(v reflect.Value) bool {
	_, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	return ok
}

// assign sets v from what YAML made of a value, without guessing: a number is not a text.
func assign(v reflect.Value, raw any) error {
	text, isString := raw.(string)
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if n, isInt := raw.(int); isInt {
			text, isString = strconv.Itoa(n), true
		}
		if !isString {
			return fmt.Errorf("want a text, got %s", describe(raw))
		}
		return u.UnmarshalText([]byte(text))
	}
	if _, ok := v.Interface().(time.Duration); ok {
		d, err := time.ParseDuration(text)
		if !isString || err != nil {
			return fmt.Errorf("want a duration such as 30s, got %s", describe(raw))
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		if err := assign(p.Elem(), raw); err != nil {
			return err
		}
		v.Set(p)
	case reflect.Float64:
		switch n := raw.(type) {
		case int:
			v.SetFloat(float64(n))
		case float64:
			v.SetFloat(n)
		default:
			return fmt.Errorf("want a number, got %s", describe(raw))
		}
	case reflect.String:
		if !isString {
			return fmt.Errorf("want a text, got %s", describe(raw))
		}
		v.SetString(text)
	case reflect.Bool:
		b, ok := raw.(bool)
		if !ok {
			return fmt.Errorf("want true or false, got %s", describe(raw))
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, ok := raw.(int)
		if !ok {
			return fmt.Errorf("want a whole number, got %s", describe(raw))
		}
		if v.OverflowInt(int64(n)) {
			return fmt.Errorf("%d is too large", n)
		}
		v.SetInt(int64(n))
	case reflect.Slice:
		list, ok := raw.([]any)
		if !ok {
			return fmt.Errorf("want a list, got %s", describe(raw))
		}
		out := reflect.MakeSlice(v.Type(), len(list), len(list))
		for i, item := range list {
			if err := assign(out.Index(i), item); err != nil {
				return fmt.Errorf("item %d: %w", i+1, err)
			}
		}
		v.Set(out)
	case reflect.Struct:
		m, ok := raw.(map[string]any)
		if !ok {
			return fmt.Errorf("want a section, got %s", describe(raw))
		}
		return assignAll(v, m)
	default:
		return fmt.Errorf("a key of type %s cannot be set", v.Type())
	}
	return nil
}

// assignAll sets the fields of an item of a list, by their keys; a secret may be in a file.
func assignAll(v reflect.Value, m map[string]any) error {
	rest := maps.Clone(m)
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Tag.Get("koanf")
		if name == "" || name == "-" {
			continue
		}
		raw, given := rest[name]
		delete(rest, name)
		if field.Tag.Get("secret") == "true" {
			file, inFile := rest[name+fileSuffix]
			delete(rest, name+fileSuffix)
			if given && inFile {
				return fmt.Errorf("%s: set both here and as %s", name, name+fileSuffix)
			}
			if inFile {
				text, err := readSecret(file)
				if err != nil {
					return fmt.Errorf("%s: %w", name+fileSuffix, err)
				}
				raw, given = text, true
			}
		}
		if !given || raw == nil {
			continue
		}
		if err := assign(v.Field(i), raw); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		return fmt.Errorf("unknown key %q", name)
	}
	return nil
}

// readSecret reads the file of a secret.
func readSecret(file any) (string, error) {
	name, ok := file.(string)
	if !ok {
		return "", fmt.Errorf("want a text, got %s", describe(file))
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// fromEnv makes of an environment variable's text what YAML would have made of it, as the
// key's type wants it: there is no other hint of the type there.
func fromEnv(l leaf, text string) any {
	if isText(l.value) {
		return text
	}
	t := l.value.Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Float64:
		if n, err := strconv.ParseFloat(text, 64); err == nil {
			return n
		}
	case reflect.Bool:
		if text == "true" || text == "false" {
			return text == "true"
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	case reflect.Slice:
		list := []any{}
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				list = append(list, item)
			}
		}
		return list
	default:
	}
	return text
}

func describe(raw any) string {
	switch x := raw.(type) {
	case nil:
		return "nothing"
	case string:
		return strconv.Quote(x)
	case []any:
		return "a list"
	case map[string]any:
		return "a section"
	case time.Time:
		return "a date (put quotes around a text)"
	default:
		return fmt.Sprint(raw)
	}
}
