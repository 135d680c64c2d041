package main

import (
	"github.com/heddle-im/heddle/cmd/internal/cli"
	"github.com/heddle-im/heddle/pkg/route"
	"github.com/heddle-im/heddle/pkg/route/render"
)

type routesCmd struct {
	Format           string   `enum:"table,json,nginx,haproxy,envoy,gateway-api" default:"table" help:"One of ${enum}."`
	Master           []string `placeholder:"HOST:PORT" help:"Addresses of the masters, for a proxy's configuration."`
	Synchrotron      []string `placeholder:"HOST:PORT" help:"Addresses of the synchrotrons."`
	FederationReader []string `placeholder:"HOST:PORT" help:"Addresses of the federation readers."`
	Listen           string   `placeholder:"ADDRESS" help:"Where the proxy takes requests."`
	Namespace        string   `help:"Kubernetes namespace, for gateway-api."`
	Gateway          string   `help:"Name of the Kubernetes gateway, for gateway-api."`
}

// Run writes the route table. The host name and the largest upload are the configuration's.
func (k routesCmd) Run(p cli.Process, c *commands) error {
	opts := render.Options{
		Upstreams: map[route.Kind][]string{
			route.Master: k.Master, route.Synchrotron: k.Synchrotron, route.FederationReader: k.FederationReader,
		},
		Listen: k.Listen, Namespace: k.Namespace, Gateway: k.Gateway,
	}
	cfg, err := c.load(p, true)
	if err != nil {
		return err
	}
	opts.MaxUpload = int64(cfg.Media.MaxUpload)
	opts.ServerName = cfg.PublicHost()
	return render.Write(p.Stdout, k.Format, opts)
}
