package app

import (
	"github.com/heddle-im/heddle/pkg/config"
	"github.com/heddle-im/heddle/pkg/service/appservice"
)

// openServices reads the registrations of application services.
func (s *shared) openServices() error {
	list, err := appservice.Load(s.cfg.Appservices)
	if err == nil {
		s.services, err = appservice.NewRegistry(s.base.server, list)
	}
	if err != nil {
		return &config.Error{Key: "appservices", Problem: err.Error()}
	}
	return nil
}
