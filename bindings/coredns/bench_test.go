package coredns

import (
	"context"
	"net"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"
)

// The cost of a query in the plugin alone: "next" is the chain without it, "pass" with it, "block" with a reply.
func BenchmarkServeDNS(b *testing.B) {
	h := unit(b, blockList(b))
	ctx := context.WithValue(context.Background(), dnsserver.Key{}, &dnsserver.Server{Addr: "dns://:53"})
	w := &from{addr: &net.UDPAddr{IP: net.ParseIP("10.1.2.3")}}
	pass, block := query("www.wikipedia.org.", dns.TypeA), query("www.evil.example.", dns.TypeA)
	for name, serve := range map[string]func(){
		"next":  func() { h.Next.ServeDNS(ctx, w, pass) },
		"pass":  func() { h.ServeDNS(ctx, w, pass) },
		"block": func() { h.ServeDNS(ctx, w, block) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				serve()
			}
		})
	}
}
