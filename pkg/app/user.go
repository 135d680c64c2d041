package app

import (
	"context"

	"github.com/heddle-im/heddle/pkg/config"
)

// NewUser is an account to be made.
type NewUser struct {
	Localpart string
	Password  string
	Admin     bool
}

// CreateUser makes an account, through the writer of its shard, and returns the full user id.
func CreateUser(_ context.Context, _ config.Config, _ NewUser) (string, error) {
	return "", ErrNotBuilt
}
