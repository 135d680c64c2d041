package app

import "github.com/heddle-im/heddle/pkg/api/auth"

func newLimiter(*base) (auth.Limiter, error) { return nil, nil }
