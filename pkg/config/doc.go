// Package config is the whole configuration of a Heddle process: one strict YAML file for
// all kinds of worker, an environment variable over each key, and a file for each secret.
//
// Guarantees: an unknown key, a value of the wrong type or out of its range is an error that
// names the key, and the file and line or the environment variable that it stands in; nothing
// is ignored silently. What Load returns has every default filled in and has been validated.
// A Config is plain data: whoever holds it may copy it, and nobody changes it after Load.
//
// Each section is a struct with defaults and a Validate method; those of a package below are
// that package's own. Only app and cmd (and tests) see the whole; everything else is handed its own section.
//
// docs/configuration.md is made from the comments on the fields, by the test
// TestReference with -rewrite.
package config
