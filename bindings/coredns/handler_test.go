package coredns

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// negative is the SOA record of an answer without records.
func negative(owner string, ttl string) []dns.RR {
	return []dns.RR{test.SOA(owner + " " + ttl + " IN SOA mlbridge.invalid. hostmaster.mlbridge.invalid. 1 3600 600 86400 " + ttl)}
}

func TestActions(t *testing.T) {
	sink := "block.action sinkhole\nsinkhole.ipv4 192.0.2.66\nsinkhole.ipv6 2001:db8::66\nblock.ttl 30\n"
	for _, row := range []struct {
		settings string
		test.Case
	}{
		{"block.ttl 30\n", test.Case{Qname: "evil.example.", Qtype: dns.TypeA, Rcode: dns.RcodeNameError, Ns: negative("evil.example.", "30")}},
		{"", test.Case{Qname: "wWw.EVIL.example.", Qtype: dns.TypeMX, Rcode: dns.RcodeNameError, Ns: negative("wWw.EVIL.example.", "60")}},
		{"block.action nodata\n", test.Case{Qname: "evil.example.", Qtype: dns.TypeA, Ns: negative("evil.example.", "60")}},
		{"block.action refused\n", test.Case{Qname: "evil.example.", Qtype: dns.TypeA, Rcode: dns.RcodeRefused}},
		{sink, test.Case{Qname: "evil.example.", Qtype: dns.TypeA, Answer: []dns.RR{test.A("evil.example. 30 IN A 192.0.2.66")}}},
		{sink, test.Case{Qname: "evil.example.", Qtype: dns.TypeAAAA, Answer: []dns.RR{test.AAAA("evil.example. 30 IN AAAA 2001:db8::66")}}},
		{sink, test.Case{Qname: "evil.example.", Qtype: dns.TypeMX, Ns: negative("evil.example.", "30")}},
		{"block.action sinkhole\nsinkhole.ipv4 192.0.2.66\n", test.Case{Qname: "evil.example.", Qtype: dns.TypeAAAA, Ns: negative("evil.example.", "60")}},
		{"vet.action nodata\n" + vetEverything, test.Case{Qname: "www.wikipedia.org.", Qtype: dns.TypeA, Ns: negative("www.wikipedia.org.", "60")}},
	} {
		h := unit(t, blockList(t)+row.settings)
		reply, code := ask(t, h, row.Msg())
		if code != dns.RcodeSuccess || reply == nil {
			t.Errorf("%q %s: code %d, reply %v", row.settings, row.Qname, code, reply)
			continue
		}
		row.RecursionAvailable = true
		if err := test.SortAndCheck(reply, row.Case); err != nil {
			t.Errorf("%q %s: %v\n%v", row.settings, row.Qname, err, reply)
		}
		if reply.AuthenticatedData || reply.Authoritative || !reply.RecursionAvailable || reply.IsEdns0() != nil {
			t.Errorf("%q %s: %v", row.settings, row.Qname, reply)
		}
	}
}

func TestWhatIsNotBlockedPasses(t *testing.T) {
	for _, row := range []struct{ settings, qname string }{
		{"", "good.evil.example."},
		{"", "www.wikipedia.org."},
		{"", "."},
		{"", "4.3.2.1.in-addr.arpa."},
		{"block.action pass\n", "evil.example."},
		{"mode observe\n", "evil.example."},
		{"except example\n", "evil.example."},
		{"except EVIL.example.\n", "www.evil.EXAMPLE."},
		{vetEverything, "www.wikipedia.org."},
	} {
		h := unit(t, blockList(t)+row.settings)
		if reply, code := ask(t, h, query(row.qname, dns.TypeA)); code != passed || reply != nil {
			t.Errorf("%q %s: code %d, reply %v", row.settings, row.qname, code, reply)
		}
	}
}

func TestNamesAsTheyAreOnTheWire(t *testing.T) {
	list := file(t, "block", "||evil.example^\n")
	h := unit(t, "lists.block "+list)
	longest := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 48) + ".evil.example." // 255 octets
	buf := make([]byte, 300)
	if n, err := dns.PackDomainName(longest, buf, 0, nil, false); err != nil || n != 255 {
		t.Fatalf("the longest name has %d octets, %v", n, err)
	}
	for qname, blocked := range map[string]bool{
		"EvIl.ExAmPlE.":               true,
		`a\000b\.c.evil.example.`:     true,
		`a\.evil.example.`:            false, // one label "a.evil", below example
		longest:                       true,
		"xn--bcher-kva.evil.example.": true,
		"_dmarc.evil.example.":        true,
	} {
		reply, code := ask(t, h, query(qname, dns.TypeA))
		if blocked && (reply == nil || reply.Rcode != dns.RcodeNameError || reply.Question[0].Name != qname) {
			t.Errorf("%s: code %d, reply %v", qname, code, reply)
		}
		if !blocked && code != passed {
			t.Errorf("%s: code %d, reply %v", qname, code, reply)
		}
	}
}

func TestOtherQueriesAreNotJudged(t *testing.T) {
	h := unit(t, blockList(t))
	chaos := query("evil.example.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	notify := query("evil.example.", dns.TypeSOA)
	notify.Opcode = dns.OpcodeNotify
	for name, r := range map[string]*dns.Msg{
		"CH class": chaos,
		"NOTIFY":   notify,
		"AXFR":     query("evil.example.", dns.TypeAXFR),
		"IXFR":     query("evil.example.", dns.TypeIXFR),
	} {
		if reply, code := ask(t, h, r); code != passed || reply != nil {
			t.Errorf("%s: code %d, reply %v", name, code, reply)
		}
	}
	if stats, err := h.engine.Stats(); err != nil || stats.Classified != 0 {
		t.Errorf("the library was asked %d times, %v", stats.Classified, err)
	}
}

func TestExtendedErrorOnlyForThoseWhoSpeakEDNS(t *testing.T) {
	for settings, want := range map[string]bool{"": true, "ede on\n": true, "ede off\n": false} {
		h := unit(t, blockList(t)+settings)
		plain, _ := ask(t, h, query("evil.example.", dns.TypeA))
		if plain.IsEdns0() != nil {
			t.Errorf("%q: OPT for a client without EDNS", settings)
		}
		r := query("evil.example.", dns.TypeA)
		r.SetEdns0(1232, true)
		reply, _ := ask(t, h, r)
		opt := reply.IsEdns0()
		if !want {
			if opt != nil {
				t.Errorf("%q: %v", settings, opt)
			}
			continue
		}
		if opt == nil || len(opt.Option) != 1 {
			t.Fatalf("%q: %v", settings, opt)
		}
		ede, ok := opt.Option[0].(*dns.EDNS0_EDE)
		if !ok || ede.InfoCode != 15 || ede.ExtraText != "blocked by mlbridge: blocklist" {
			t.Errorf("%q: %v", settings, opt)
		}
	}
}

// connection is a client; it notes whether it was closed.
type connection struct {
	test.ResponseWriter
	closed bool
}

func (c *connection) Close() error { c.closed = true; return nil }

func TestDropAnswersNothing(t *testing.T) {
	h := unit(t, blockList(t)+"block.action drop\n")
	if reply, code := ask(t, h, query("evil.example.", dns.TypeA)); reply != nil || code != dns.RcodeSuccess {
		t.Errorf("code %d, reply %v", code, reply)
	}
	// Closed always: TCP and TLS clients would wait, and a QUIC stream, whose client has an address of UDP, would stay open.
	for _, tcp := range []bool{false, true} {
		c := &connection{ResponseWriter: test.ResponseWriter{TCP: tcp}}
		if _, err := h.ServeDNS(context.Background(), c, query("evil.example.", dns.TypeA)); err != nil || !c.closed {
			t.Errorf("TCP %v: closed %v, %v", tcp, c.closed, err)
		}
	}
}

// from is a client at an address.
type from struct {
	test.ResponseWriter
	addr net.Addr
}

func (f *from) RemoteAddr() net.Addr { return f.addr }

// proxied is an address told by the PROXY protocol.
type proxied struct {
	net.Addr
	real net.Addr
}

func (p proxied) Unwrap() net.Addr { return p.real }

func TestTheClientsAddress(t *testing.T) {
	ip := net.ParseIP("10.1.2.3")
	for _, row := range []struct {
		addr net.Addr
		want string
	}{
		{&net.UDPAddr{IP: ip}, "::ffff:10.1.2.3"},
		{&net.TCPAddr{IP: ip.To4()}, "10.1.2.3"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8::7")}, "2001:db8::7"},
		{proxied{&net.TCPAddr{IP: net.ParseIP("127.0.0.1")}, &net.TCPAddr{IP: ip.To4()}}, "10.1.2.3"},
		{&net.UnixAddr{Name: "socket"}, "invalid IP"},
	} {
		if got := sourceOf(&from{addr: row.addr}); got.String() != row.want {
			t.Errorf("%v: %v", row.addr, got)
		}
	}
}

// subnet is a query with the EDNS client subnet option.
func subnet(address string, bits uint8) *dns.Msg {
	r := query("evil.example.", dns.TypeA)
	r.SetEdns0(1232, false)
	addr := netip.MustParseAddr(address)
	family := uint16(1)
	if addr.Is6() {
		family = 2
	}
	r.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{
		Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: bits, Address: addr.AsSlice(),
	}}
	return r
}

func TestGroupsGoByTheClient(t *testing.T) {
	// The list holds for 10.0.0.0/8 and 2001:db8::/32 only; the test's writers come from 10.240.0.1 and from fe80::.
	group := "groups.office.cidr 10.0.0.0/8 2001:db8::/32\ngroups.office.lists.block " + file(t, "block", "||evil.example^\n") + "\n"
	for _, row := range []struct {
		settings string
		w        dns.ResponseWriter
		r        *dns.Msg
		blocked  bool
	}{
		{"", &test.ResponseWriter{}, query("evil.example.", dns.TypeA), true},
		{"", &test.ResponseWriter6{}, query("evil.example.", dns.TypeA), false},
		{"", &test.ResponseWriter{}, subnet("192.0.2.0", 24), true},                 // the option is not looked at
		{"client source\n", &test.ResponseWriter6{}, subnet("10.0.0.0", 24), false}, // nor here
		{"client ecs\n", &test.ResponseWriter{}, subnet("192.0.2.0", 24), false},    // here it is
		{"client ecs\n", &test.ResponseWriter6{}, subnet("10.0.0.0", 24), true},     // here too
		{"client ecs\n", &test.ResponseWriter6{}, subnet("2001:db8::", 56), true},   // IPv6
		{"client ecs\n", &test.ResponseWriter{}, subnet("0.0.0.0", 0), true},        // withheld: the source
		{"client ecs\n", &test.ResponseWriter{}, query("evil.example.", 1), true},   // absent: the source
		{"client ecs\n", &test.ResponseWriter6{}, query("evil.example.", 1), false}, // absent: the source
	} {
		h := unit(t, group+row.settings)
		recorder := dnstest.NewRecorder(row.w)
		code, err := h.ServeDNS(context.Background(), recorder, row.r)
		if err != nil || (code != passed) != row.blocked {
			t.Errorf("%q from %v: code %d, %v\n%v", row.settings, row.w.RemoteAddr(), code, err, row.r)
		}
	}
}

func TestMetadata(t *testing.T) {
	h := unit(t, blockList(t))
	ctx := metadata.ContextWithMetadata(context.Background())
	if _, err := h.ServeDNS(ctx, &test.ResponseWriter{}, query("evil.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{
		"mlbridge/decision": "block", "mlbridge/action": "nxdomain", "mlbridge/source": "blocklist", "mlbridge/label": "benign", "mlbridge/score": "0",
	} {
		if f := metadata.ValueFunc(ctx, label); f == nil || f() != want && label != "mlbridge/score" {
			t.Errorf("%s is not %s", label, want)
		}
	}
}

func TestAFailureInsideIsCountedAndPasses(t *testing.T) {
	h := unit(t, "test.panic score\n")
	before := testutil.ToFloat64(errorCount.WithLabelValues(""))
	stats, err := h.engine.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if reply, code := ask(t, h, query("www.wikipedia.org.", dns.TypeA)); code != passed || reply != nil {
		t.Errorf("code %d, reply %v", code, reply)
	}
	if after := testutil.ToFloat64(errorCount.WithLabelValues("")); after != before+1 {
		t.Errorf("errors_total went from %v to %v", before, after)
	}
	if after, err := h.engine.Stats(); err != nil || after.Panics != stats.Panics+1 {
		t.Errorf("the library caught %d panics, %v", after.Panics-stats.Panics, err)
	}
}

func TestAClosedEngineAnswersNothingUnfiltered(t *testing.T) {
	h := unit(t, blockList(t))
	h.engine.Close()
	if reply, code := ask(t, h, query("evil.example.", dns.TypeA)); reply != nil || code != dns.RcodeServerFailure {
		t.Errorf("code %d, reply %v", code, reply)
	}
}

func TestOnlyTheReplyAllocates(t *testing.T) {
	h := unit(t, blockList(t))
	r := query("www.wikipedia.org.", dns.TypeA)
	w := &from{addr: &net.UDPAddr{IP: net.ParseIP("10.1.2.3")}}
	ctx := context.WithValue(context.Background(), dnsserver.Key{}, &dnsserver.Server{Addr: "dns://:53"})
	pass := testing.AllocsPerRun(1000, func() { h.ServeDNS(ctx, w, r) })
	next := testing.AllocsPerRun(1000, func() { h.Next.ServeDNS(ctx, w, r) })
	// NextOrFailure itself may wrap the context for tracing: compare with a chain without us.
	if pass > next+1 {
		t.Errorf("%v allocations with the plugin, %v without", pass, next)
	}
}
