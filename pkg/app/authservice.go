package app

import (
	"context"
	"errors"

	"github.com/heddle-im/heddle/pkg/api/write"
	"github.com/heddle-im/heddle/pkg/remote/authservice"
	"github.com/heddle-im/heddle/pkg/service/account"
	"github.com/heddle-im/heddle/pkg/service/account/contact"
)

// openAuthService has tokens asked about at the outside service that the configuration names, if it does.
func (s *shared) openAuthService() error {
	if s.cfg.OAuth.Endpoint == "" {
		return nil
	}
	service, err := authservice.New(authservice.Config{Endpoint: s.cfg.OAuth.Endpoint, Secret: s.cfg.OAuth.Secret}, s.now)
	if err != nil {
		return err
	}
	s.onClose(service.Close)
	s.authService = service
	s.sessions.Delegate(introspector{service}, func(ctx context.Context, cmd *account.PutDevice) error {
		_, err := accountDoer{to: s.to, shards: s.shards}.Do(ctx, nil, cmd)
		return err
	})
	return nil
}

// introspector is the outside service as sessions see it.
type introspector struct{ *authservice.Service }

// Introspect implements account.Introspector.
func (i introspector) Introspect(ctx context.Context, token string) (account.Introspected, error) {
	t, err := i.Service.Introspect(ctx, token)
	if errors.Is(err, authservice.ErrInactive) {
		err = errors.Join(account.ErrInactive, err)
	}
	return account.Introspected(t), err
}

// delegated gives the handlers for accounts that an outside service keeps; nil if they are our own.
func (s *shared) delegated(front *account.Front, desk *contact.Desk) *write.Delegated {
	if s.authService == nil {
		return nil
	}
	return write.NewDelegated(write.DelegatedOptions{
		Secret: s.cfg.OAuth.Secret, Front: front, Contacts: desk, Profiles: account.NewReader(s.shards, s.accounts),
		Metadata: func(ctx context.Context) (write.AuthMetadata, error) {
			m, err := s.authService.Metadata(ctx)
			return write.AuthMetadata{JSON: m.JSON, Issuer: m.Issuer, AccountManagementURI: m.AccountManagementURI}, err
		},
	})
}
