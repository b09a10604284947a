// Command bench is the CoreDNS that bench.sh measures: the plugins that a measurement needs, mlbridge, and posteach, which
// does with each query what the suite of 2020 did, to compare with.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/template"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"

	mlbridge "github.com/mlbridge/mlbridge/bindings/coredns"
)

const postEach = "posteach"

func init() { plugin.Register(postEach, setup) }

func main() {
	list := mlbridge.Directives(dnsserver.Directives)
	list = slices.Insert(list, slices.Index(list, "mlbridge"), postEach)
	if err := dnsserver.SetDirectives(list); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if len(os.Args) == 3 && os.Args[1] == "nothing" {
		serveNothing(os.Args[2])
		return
	}
	coremain.Run()
}

// serveNothing is the server that does nothing: it answers each POST at once with a verdict that is always the same.
func serveNothing(addr string) {
	err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"prediction":"benign"}`)
	}))
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// poster posts each query's name as JSON, waits for the reply and passes the query on, whatever the reply.
type poster struct {
	next   plugin.Handler
	url    string
	client *http.Client
}

func setup(c *caddy.Controller) error {
	var url string
	if !c.Next() || !c.Args(&url) {
		return plugin.Error(postEach, c.ArgErr())
	}
	// Connections are kept: the kindest case for this way.
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		return &poster{next: next, url: url, client: &http.Client{Transport: transport}}
	})
	return nil
}

// Name implements plugin.Handler.
func (p *poster) Name() string { return postEach }

// ServeDNS implements plugin.Handler.
func (p *poster) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	body, err := json.Marshal(map[string]string{"domain": state.Name(), "client": state.IP()})
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	response, err := p.client.Post(p.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	return plugin.NextOrFailure(postEach, p.next, ctx, w, r)
}
