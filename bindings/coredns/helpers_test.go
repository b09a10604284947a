package coredns

import (
	"bytes"
	"context"
	stdlog "log"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/miekg/dns"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/metadata"
)

func TestMain(m *testing.M) {
	if err := dnsserver.SetDirectives(append([]string{failsToStop}, Directives(dnsserver.Directives)...)); err != nil {
		panic(err)
	}
	caddy.Quiet = true
	os.Exit(m.Run())
}

// file writes a file for one test and returns its path.
func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// blockList is a list with evil.example and all below, but good.evil.example.
func blockList(t testing.TB) string {
	t.Helper()
	return "lists.block " + file(t, "block", "||evil.example^\n") + "\nlists.allow " + file(t, "allow", "good.evil.example\n") + "\n"
}

// vetEverything makes every name that no list decides one to vet, whatever the model is.
const vetEverything = "threshold.vet 0\nthreshold.block 1\n"

// stateDir is a directory that the store accepts.
func stateDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// upstreamAddress is what the upstream server gives for every A question.
const upstreamAddress = "192.0.2.80"

// upstream is a name server that knows every name and every type, and counts what it is asked.
type upstream struct {
	addr  string
	asked atomic.Int64
}

func startUpstream(t testing.TB) *upstream {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", packets.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{addr: packets.LocalAddr().String()}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: u}, {Listener: listener, Handler: u}} {
		go server.ActivateAndServe()
		t.Cleanup(func() { server.Shutdown() })
	}
	return u
}

// ServeDNS implements dns.Handler.
func (u *upstream) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	u.asked.Add(1)
	m := new(dns.Msg)
	m.SetReply(r)
	q := r.Question[0]
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: q.Qclass, Ttl: 300}
	switch q.Qtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: header, A: net.ParseIP(upstreamAddress)}}
	case dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: header, AAAA: net.ParseIP("2001:db8::80")}}
	case dns.TypeMX:
		m.Answer = []dns.RR{&dns.MX{Hdr: header, Preference: 10, Mx: "mail." + q.Name}}
	case dns.TypeTXT:
		m.Answer = []dns.RR{&dns.TXT{Hdr: header, Txt: []string{"upstream"}}}
	case dns.TypeAXFR:
		header.Rrtype = dns.TypeSOA
		zone := soa(q.Name, 300)
		m.Answer = []dns.RR{zone, &dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: net.ParseIP(upstreamAddress)}, zone}
	}
	w.WriteMsg(m)
}

// passed is the rcode by which the next plugin in unit tests shows that it was asked.
const passed = dns.RcodeNotZone

// unit makes a Handler from the text of a block; the next plugin answers with the code passed and writes nothing.
func unit(t testing.TB, settings string) *Handler {
	t.Helper()
	c := caddy.NewTestController("dns", "mlbridge {\n"+settings+"\n}")
	if err := setup(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release(func(l *load) bool { return l == c.Get(loadKey{}) }) })
	next := plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return passed, nil })
	plugins := dnsserver.GetConfig(c).Plugin
	return plugins[len(plugins)-1](next).(*Handler)
}

// ask sends a query through a Handler and returns the reply, nil for none, and the code it returned.
func ask(t testing.TB, h *Handler, r *dns.Msg) (*dns.Msg, int) {
	t.Helper()
	recorder := dnstest.NewRecorder(&test.ResponseWriter{})
	code, err := h.ServeDNS(context.Background(), recorder, r)
	if err != nil {
		t.Fatal(err)
	}
	return recorder.Msg, code
}

// query is a question for a name.
func query(qname string, qtype uint16) *dns.Msg {
	r := new(dns.Msg)
	r.SetQuestion(qname, qtype)
	return r
}

// lockedBuffer collects what several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// captureLog collects CoreDNS's log for one test.
func captureLog(t *testing.T) *lockedBuffer {
	t.Helper()
	logged := &lockedBuffer{}
	before := stdlog.Writer()
	stdlog.SetOutput(logged)
	t.Cleanup(func() { stdlog.SetOutput(before) })
	return logged
}
