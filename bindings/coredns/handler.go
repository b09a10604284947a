// Package coredns is the CoreDNS plugin mlbridge: it asks libmlbridge about the name of each query and answers as the
// verdict says, or passes the query on to the next plugin.
//
// It holds no policy: decisions, actions, addresses and times to live are the library's. Whatever fails inside is counted
// and the query goes on to the next plugin as if the plugin were not there. README.md is the manual.
package coredns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/metrics"
	"github.com/miekg/dns"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

// Handler judges the queries of one server.
type Handler struct {
	Next   plugin.Handler
	engine *engine
	except plugin.Zones
	ede    bool                        // explain a blocked answer to clients that speak EDNS
	ecs    bool                        // the client is the one that EDNS client subnet names
	counts atomic.Pointer[[]*counters] // by server
}

// Name implements plugin.Handler.
func (h *Handler) Name() string { return name }

// Ready implements the ready plugin's interface: a Handler exists only with an open engine.
func (h *Handler) Ready() bool { return true }

// ServeDNS implements plugin.Handler. Its frame is on the stack for as long as the plugins after it run, and each query has
// a goroutine with a small stack of its own: a larger frame here makes that stack be copied once more, which costs more
// than the verdict. So whatever needs room is in judge, which has returned by then.
func (h *Handler) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if h.concerns(r) {
		if code, answered := h.judge(ctx, w, r); answered {
			return code, nil
		}
	}
	return plugin.NextOrFailure(name, h.Next, ctx, w, r)
}

// judge asks for the verdict on a query, counts it, and answers the query if the verdict says so. Otherwise the query is the
// next plugin's, as it is after any failure.
//
//go:noinline
func (h *Handler) judge(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (code int, answered bool) {
	counts := h.countersFor(metrics.WithServer(ctx))
	verdict, err := h.classify(w, r)
	if err != nil {
		counts.errors.Inc()
		if errors.Is(err, mlbridge.ErrClosed) {
			// The server is stopping and answers its last queries. Resolvers try another one; an unfiltered answer would stay.
			return dns.RcodeServerFailure, true
		}
		h.engine.logError(err)
		return 0, false
	}
	counts.verdict(verdict)
	if verdict.Flags&mlbridge.FlagMessage != 0 && !h.engine.draining.Load() {
		go h.engine.logMessages() // the log may be slow; the query does not wait for it
	}
	if metadata.ValueFuncs(ctx) != nil {
		describe(ctx, verdict)
	}
	switch verdict.Action {
	case mlbridge.NXDomain, mlbridge.NoData, mlbridge.Refused, mlbridge.Sinkhole:
		h.answer(w, r, verdict)
	case mlbridge.Drop:
		drop(w)
	default:
		return 0, false
	}
	// Success even where REFUSED was written: for any other code the server would write a second reply.
	return dns.RcodeSuccess, true
}

// concerns tells whether the query is one to judge: a look-up of one Internet name. Zone transfers, other classes, updates
// and notifications are not, and neither are the zones that the Corefile excepts.
func (h *Handler) concerns(r *dns.Msg) bool {
	if r.Opcode != dns.OpcodeQuery || len(r.Question) != 1 {
		return false
	}
	q := &r.Question[0]
	if q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		return false
	}
	return len(h.except) == 0 || !h.except.Contains(q.Name)
}

// classify asks the library, without a heap allocation. The name goes in wire form: the text form that CoreDNS holds has
// escapes in it.
func (h *Handler) classify(w dns.ResponseWriter, r *dns.Msg) (mlbridge.Verdict, error) {
	q := &r.Question[0]
	var qname [256]byte
	n, err := dns.PackDomainName(q.Name, qname[:], 0, nil, false)
	if err != nil {
		return mlbridge.Verdict{}, err
	}
	client := sourceOf(w)
	if h.ecs {
		if subnet := subnetOf(r); subnet.IsValid() {
			client = subnet
		}
	}
	return h.engine.ClassifyWire(qname[:n], client, q.Qtype)
}

// sourceOf is the address that the query came from. A listener with PROXY protocol wraps the address it was told.
func sourceOf(w dns.ResponseWriter) netip.Addr {
	remote := w.RemoteAddr()
	if wrapped, ok := remote.(interface{ Unwrap() net.Addr }); ok {
		remote = wrapped.Unwrap()
	}
	var ip net.IP
	switch a := remote.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.TCPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr
}

// subnetOf is the address in the query's EDNS client subnet option (RFC 7871), or none. A prefix length of 0 says that the
// client's address is not told.
func subnetOf(r *dns.Msg) netip.Addr {
	opt := r.IsEdns0()
	if opt == nil {
		return netip.Addr{}
	}
	for _, option := range opt.Option {
		if subnet, ok := option.(*dns.EDNS0_SUBNET); ok && subnet.SourceNetmask > 0 {
			addr, _ := netip.AddrFromSlice(subnet.Address)
			return addr
		}
	}
	return netip.Addr{}
}

// describe sets the metadata that log, for example, prints as {/mlbridge/decision}.
func describe(ctx context.Context, v mlbridge.Verdict) {
	metadata.SetValueFunc(ctx, "mlbridge/decision", func() string { return v.Decision.String() })
	metadata.SetValueFunc(ctx, "mlbridge/action", func() string { return v.Action.String() })
	metadata.SetValueFunc(ctx, "mlbridge/source", func() string { return v.Source.String() })
	metadata.SetValueFunc(ctx, "mlbridge/label", func() string { return v.Label.String() })
	metadata.SetValueFunc(ctx, "mlbridge/score", func() string {
		return strconv.FormatFloat(float64(v.Score), 'g', 6, 32)
	})
}

// answer writes the reply that the verdict asks for.
func (h *Handler) answer(w dns.ResponseWriter, r *dns.Msg, v mlbridge.Verdict) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.RecursionAvailable = true
	switch v.Action {
	case mlbridge.NXDomain:
		m.Rcode = dns.RcodeNameError
	case mlbridge.Refused:
		m.Rcode = dns.RcodeRefused
	case mlbridge.Sinkhole:
		m.Answer = sinkhole(r.Question[0], v)
	}
	if m.Rcode != dns.RcodeRefused && len(m.Answer) == 0 {
		m.Ns = []dns.RR{soa(r.Question[0].Name, v.TTL)}
	}
	if h.ede && r.IsEdns0() != nil {
		m.SetEdns0(dns.DefaultMsgSize, false) // the server copies size and DO bit from the query
		opt := m.IsEdns0()
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{
			InfoCode:  dns.ExtendedErrorCodeBlocked,
			ExtraText: "blocked by mlbridge: " + v.Source.String(),
		})
	}
	if err := w.WriteMsg(m); err != nil {
		log.Debugf("reply not sent: %v", err) // the client has gone; there is nobody to answer with another reply
	}
}

// sinkhole is the verdict's address, if the question asks for its family and there is one.
func sinkhole(q dns.Question, v mlbridge.Verdict) []dns.RR {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: v.TTL}
	if addr := v.SinkholeIPv4(); q.Qtype == dns.TypeA && addr.IsValid() {
		return []dns.RR{&dns.A{Hdr: header, A: addr.AsSlice()}}
	}
	if addr := v.SinkholeIPv6(); q.Qtype == dns.TypeAAAA && addr.IsValid() {
		return []dns.RR{&dns.AAAA{Hdr: header, AAAA: addr.AsSlice()}}
	}
	return nil
}

// soa makes a negative answer one that resolvers downstream cache for ttl seconds (RFC 2308).
func soa(owner string, ttl uint32) dns.RR {
	return &dns.SOA{
		Hdr:     dns.RR_Header{Name: owner, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:      "mlbridge.invalid.",
		Mbox:    "hostmaster.mlbridge.invalid.",
		Serial:  1,
		Refresh: 3600,
		Retry:   600,
		Expire:  86400,
		Minttl:  ttl,
	}
}

// drop answers nothing. On a connection or a QUIC stream the client would wait for its timeout, so that is closed; over UDP
// Close does nothing.
func drop(w dns.ResponseWriter) {
	if err := w.Close(); err != nil {
		log.Debugf("connection not closed: %v", err)
	}
}

// logError says at most once a minute why queries pass unjudged; the counter has them all.
func (e *engine) logError(err error) {
	now := time.Now().Unix()
	last := e.lastError.Load()
	if now-last >= 60 && e.lastError.CompareAndSwap(last, now) {
		log.Errorf("queries pass unjudged: %v", err)
	}
}
