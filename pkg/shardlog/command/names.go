package command

import (
	"encoding/json"
	"fmt"
)

// Command is what a service has done by the worker that holds a shard; it travels as JSON.
type Command interface {
	// Method is the command's name: the same in every release.
	Method() string
}

// Methods gives the names of commands.
func Methods[C Command](all []C) []string {
	names := make([]string, len(all))
	for i, c := range all {
		names[i] = c.Method()
	}
	return names
}

// Decode reads a command as it was sent into the one of all that has its name.
func Decode[C Command](all []C, method string, b []byte) (none C, _ error) {
	for _, c := range all {
		if c.Method() != method {
			continue
		}
		if err := json.Unmarshal(b, c); err != nil {
			return none, fmt.Errorf("decode %s: %w", method, err)
		}
		return c, nil
	}
	return none, fmt.Errorf("decode %s: unknown command", method)
}
