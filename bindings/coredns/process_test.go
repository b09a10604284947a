package coredns

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// program builds cmd/coredns once; MLBRIDGE_COREDNS names another one to test, such as one built by CoreDNS's plugin.cfg.
var program = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("MLBRIDGE_COREDNS"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "mlbridge-coredns")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "coredns")
	out, err := exec.Command("go", "build", "-o", path, "./cmd/coredns").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

// theProgram is the path of the program to test. The race detector's pass has nothing to gain from another process.
func theProgram(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: no processes")
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// process is a CoreDNS of its own.
type process struct {
	cmd    *exec.Cmd
	dir    string
	port   string // DNS over UDP and TCP
	logged *lockedBuffer
	ended  chan struct{} // closed when it has
}

// launch starts CoreDNS with a Corefile in which PORT, TLSPORT, HTTPSPORT, WEBPORT, HEALTHPORT and READYPORT stand for
// free ports, and waits until it answers.
func launch(t *testing.T, text string) *process {
	t.Helper()
	path := theProgram(t)
	p := &process{dir: t.TempDir(), logged: &lockedBuffer{}, ended: make(chan struct{})}
	text = withPorts(t, text)
	p.port = portOf(t, text)
	p.write(t, text)
	p.cmd = exec.Command(path, "-conf", "Corefile")
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = p.dir, p.logged, p.logged
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("CoreDNS said:\n%s", p.logged)
		}
	})
	p.waitFor(t, "answers", func() bool {
		_, err := lookUp("127.0.0.1:"+p.port, "ready.test.")
		return err == nil || strings.Contains(err.Error(), "timeout")
	})
	return p
}

// withPorts puts free ports in the place of the words for them.
func withPorts(t *testing.T, text string) string {
	t.Helper()
	for _, word := range []string{"TLSPORT", "HTTPSPORT", "WEBPORT", "HEALTHPORT", "READYPORT", "PORT"} {
		if strings.Contains(text, word) {
			text = strings.ReplaceAll(text, word, strconv.Itoa(freePort(t)))
		}
	}
	return text
}

// freePort is free for UDP and TCP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", packets.LocalAddr().String())
		packets.Close()
		if err == nil {
			listener.Close()
			return packets.LocalAddr().(*net.UDPAddr).Port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// portOf finds the port of the first plain server block.
func portOf(t *testing.T, text string) string {
	t.Helper()
	match := regexp.MustCompile(`(?m)^(?:dns://)?[a-z.]*:(\d+)[^{]*\{`).FindStringSubmatch(text)
	if match == nil {
		t.Fatalf("no port in\n%s", text)
	}
	return match[1]
}

func (p *process) write(t *testing.T, corefile string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "Corefile"), []byte(corefile), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *process) read(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "Corefile"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until something is so, or the process has ended, or half a minute is over.
func (p *process) waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !is() {
		select {
		case <-p.ended:
			t.Fatalf("CoreDNS ended before: %s\n%s", what, p.logged)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s\n%s", what, p.logged)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// end waits until the process has ended and returns its exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("CoreDNS does not end\n%s", p.logged)
	}
	return p.cmd.ProcessState.ExitCode()
}

// reload sends SIGUSR1 and waits for one more line of the log that says how it went.
func (p *process) reload(t *testing.T, says string) {
	t.Helper()
	before := strings.Count(p.logged.String(), says)
	p.signal(t, syscall.SIGUSR1)
	p.waitFor(t, says, func() bool { return strings.Count(p.logged.String(), says) > before })
}

// dig asks with the program dig. One try: what is lost is lost.
func (p *process) dig(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := exec.Command("dig", append([]string{"@127.0.0.1", "-p", p.port, "+tries=1", "+time=2"}, arguments...)...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("dig (package bind9-dnsutils): %v", err)
	}
	return string(out)
}

// get fetches a page of the server.
func get(t *testing.T, port, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://127.0.0.1:" + port + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// certificate writes cert.pem and key.pem for the loopback and returns their directory.
func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "localhost"},
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEveryActionOverEveryTransport(t *testing.T) {
	up := startUpstream(t)
	certs := certificate(t)
	list := file(t, "block", "*.nxdomain.test\n*.nodata.test\n*.refused.test\n*.sinkhole.test\n*.drop.test\n")
	tls, https := strconv.Itoa(freePort(t)), strconv.Itoa(freePort(t))
	var text strings.Builder
	for _, action := range []string{"nxdomain", "nodata", "refused", "sinkhole", "drop", "pass"} {
		for _, scheme := range []string{"dns://%s.test:PORT", "tls://%s.test:" + tls, "https://%s.test:" + https} {
			fmt.Fprintf(&text, scheme+" {\nbind 127.0.0.1\nmlbridge {\nlists.block %s\nblock.action %s\nblock.ttl 30\n", action, list, action)
			text.WriteString("sinkhole.ipv4 192.0.2.66\nsinkhole.ipv6 2001:db8::66\n}\n")
			if !strings.HasPrefix(scheme, "dns") {
				fmt.Fprintf(&text, "tls %s/cert.pem %s/key.pem\n", certs, certs)
			}
			fmt.Fprintf(&text, "forward . %s\n}\n", up.addr)
		}
	}
	text.WriteString(". {\n}\n")
	p := launch(t, strings.Replace(text.String(), ". {\n}\n", ".:PORT {\nbind 127.0.0.1\nforward . "+up.addr+"\n}\n", 1))

	transports := [][]string{{}, {"+tcp"}, {"-p", tls, "+tls"}, {"-p", https, "+https"}}
	for _, transport := range transports {
		for _, row := range []struct {
			name string
			also []string
			says []string
			not  []string
		}{
			{"evil.nxdomain.test", nil, []string{"status: NXDOMAIN", "30\tIN\tSOA", "EDE: 15 (Blocked): (blocked by mlbridge: blocklist)", " ra;"}, []string{" ad;", " aa "}},
			{"EvIl.NXdomain.test", []string{"+noedns", "MX"}, []string{"status: NXDOMAIN", "EvIl.NXdomain.test.", "SOA"}, []string{"EDE", "OPT PSEUDOSECTION"}},
			{"evil.nxdomain.test", []string{"+dnssec", "AAAA"}, []string{"status: NXDOMAIN", "flags: do;", "EDE: 15"}, []string{" ad;"}},
			{"evil.nodata.test", nil, []string{"status: NOERROR", "ANSWER: 0", "30\tIN\tSOA", "EDE: 15"}, nil},
			{"evil.refused.test", nil, []string{"status: REFUSED", "ANSWER: 0", "EDE: 15"}, []string{"SOA"}},
			{"evil.sinkhole.test", nil, []string{"status: NOERROR", "30\tIN\tA\t192.0.2.66", "EDE: 15"}, []string{"SOA"}},
			{"evil.sinkhole.test", []string{"AAAA"}, []string{"status: NOERROR", "30\tIN\tAAAA\t2001:db8::66"}, nil},
			{"evil.sinkhole.test", []string{"MX"}, []string{"status: NOERROR", "ANSWER: 0", "SOA"}, nil},
			{"evil.pass.test", nil, []string{"status: NOERROR", upstreamAddress}, []string{"EDE"}},
			{"nxdomain.test", nil, []string{"status: NOERROR", upstreamAddress}, []string{"EDE"}},
		} {
			arguments := append(append([]string{row.name}, row.also...), transport...)
			out := p.dig(t, arguments...)
			for _, want := range row.says {
				if !strings.Contains(out, want) {
					t.Errorf("dig %v lacks %q:\n%s", arguments, want, out)
				}
			}
			for _, unwanted := range row.not {
				if strings.Contains(out, unwanted) {
					t.Errorf("dig %v has %q:\n%s", arguments, unwanted, out)
				}
			}
		}
		out := p.dig(t, append([]string{"evil.drop.test", "+time=1"}, transport...)...)
		if strings.Contains(out, "status:") {
			t.Errorf("dig %v: a reply where none was wanted:\n%s", transport, out)
		}
		if len(transport) > 0 && transport[len(transport)-1] != "+https" && strings.Contains(out, "timed out") {
			t.Errorf("dig %v: the connection stays open without a reply:\n%s", transport, out)
		}
	}
}

func TestOtherClassesAndTransfersReachTheNextPlugin(t *testing.T) {
	up := startUpstream(t)
	p := launch(t, ".:PORT {\nbind 127.0.0.1\nmlbridge {\n"+blockList(t)+"}\nforward . "+up.addr+"\n}\n")
	if out := p.dig(t, "evil.example", "CH", "TXT"); !strings.Contains(out, `"upstream"`) {
		t.Errorf("CH class:\n%s", out)
	}
	if out := p.dig(t, "evil.example", "AXFR"); !strings.Contains(out, upstreamAddress) || !strings.Contains(out, "XFR size: 3") {
		t.Errorf("AXFR:\n%s", out)
	}
	if out := p.dig(t, "evil.example", "A"); !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("A:\n%s", out)
	}
}

func TestLogMetricsAndReadiness(t *testing.T) {
	up := startUpstream(t)
	web, ready := strconv.Itoa(freePort(t)), strconv.Itoa(freePort(t))
	p := launch(t, ".:PORT {\nbind 127.0.0.1\nmetadata\n"+
		`log . "VERDICT {name} {/mlbridge/decision} {/mlbridge/action} {/mlbridge/source} {/mlbridge/score}"`+
		"\nprometheus 127.0.0.1:"+web+"\nready 127.0.0.1:"+ready+"\nmlbridge {\n"+blockList(t)+"}\ncache\nforward . "+up.addr+"\n}\n")
	for range 3 {
		p.dig(t, "www.evil.example")
	}
	p.dig(t, "good.evil.example")
	if code, body := get(t, ready, "/ready"); code != http.StatusOK || strings.TrimSpace(body) != "OK" {
		t.Errorf("/ready: %d %s", code, body)
	}
	server := `server="dns://127.0.0.1:` + p.port + `"`
	_, metrics := get(t, web, "/metrics")
	for _, line := range []string{
		`coredns_mlbridge_queries_total{action="nxdomain",decision="block",` + server + `} 3`,
		`coredns_mlbridge_engines 1`,
		`coredns_mlbridge_last_good_engines 0`,
		`mlbridge_blocked_total{block="dns://.:` + p.port + `"} 3`,
		`coredns_plugin_enabled{name="mlbridge",`,
	} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if t.Failed() {
		t.Log(regexp.MustCompile(`(?m)^(#|go_|process_).*\n`).ReplaceAllString(metrics, ""))
	}
	for _, line := range []string{"VERDICT www.evil.example. block nxdomain blocklist 0", "VERDICT good.evil.example. allow pass allowlist "} {
		p.waitFor(t, line, func() bool { return strings.Contains(p.logged.String(), line) })
	}
}

func TestReloadsUnderLoadLoseNoQuery(t *testing.T) {
	t.Parallel() // it mostly waits
	up := startUpstream(t)
	p := launch(t, string(corefileFor("PORT", blockList(t), up.addr)))
	good := p.read(t)

	var names strings.Builder
	for n := range 1000 {
		if n%10 == 0 {
			fmt.Fprintf(&names, "n%d.evil.example A\n", n)
		} else {
			fmt.Fprintf(&names, "n%d.example A\n", n)
		}
	}
	var out bytes.Buffer
	load := exec.Command("dnsperf", "-s", "127.0.0.1", "-p", p.port, "-d", file(t, "names", names.String()), "-Q", "2000", "-l", "8", "-t", "5")
	load.Stdout, load.Stderr = &out, &out
	if err := load.Start(); err != nil {
		t.Fatalf("dnsperf: %v", err)
	}
	for n := range 4 {
		time.Sleep(800 * time.Millisecond) // under load between two reloads
		p.write(t, strings.Replace(good, "mlbridge {", fmt.Sprintf("mlbridge {\nblock.ttl %d", 100+n), 1))
		p.reload(t, "Reloading complete")
	}
	time.Sleep(800 * time.Millisecond)
	p.write(t, strings.Replace(good, "mlbridge {", "mlbridge {\nsinkhole.ipv4 1.2.3", 1))
	p.reload(t, "[ERROR] SIGUSR1")
	if !strings.Contains(p.logged.String(), `"1.2.3"`) {
		t.Errorf("the log does not say what is wrong:\n%s", p.logged)
	}
	if err := load.Wait(); err != nil {
		t.Fatalf("dnsperf: %v\n%s", err, &out)
	}
	report := out.String()
	sent := number(t, report, `Queries sent:\s+(\d+)`)
	lost := number(t, report, `Queries lost:\s+(\d+)`)
	blocked := number(t, report, `NXDOMAIN (\d+)`)
	answered := number(t, report, `NOERROR (\d+)`)
	if lost != 0 || answered+blocked != sent || strings.Contains(report, "SERVFAIL") {
		t.Errorf("%d sent, %d lost, %d blocked, %d answered:\n%s", sent, lost, blocked, answered, report)
	}
	// dnsperf goes through its names in order, one in ten is blocked.
	if want := sent / 10; blocked < want || blocked > want+1 {
		t.Errorf("%d of %d blocked", blocked, sent)
	}
}

// corefileFor is corefile with a port.
func corefileFor(port, settings, upstream string) []byte {
	return []byte(strings.Replace(string(corefile(settings, upstream).Body()), ".:0", ".:"+port, 1))
}

// number is what a pattern finds in a text, 0 if nothing.
func number(t *testing.T, text, pattern string) int {
	t.Helper()
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		return 0
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTermWithLameduckBlocksToTheEndAndStoresEverything(t *testing.T) {
	t.Parallel() // it mostly waits
	up := startUpstream(t)
	dir := stateDir(t)
	web := strconv.Itoa(freePort(t))
	text := string(corefileFor("PORT", blockList(t)+"record.allow all\nstate_dir "+dir+"\n", up.addr))
	p := launch(t, strings.Replace(text, "mlbridge", "health 127.0.0.1:"+web+" {\nlameduck 2s\n}\nmlbridge", 1))

	queries := 1 // launch's own
	for n := range 300 {
		expect(t, "127.0.0.1:"+p.port, fmt.Sprintf("n%d.example.", n%7), dns.RcodeSuccess)
		queries++
	}
	p.signal(t, syscall.SIGTERM)
	p.waitFor(t, "lameduck", func() bool { return strings.Contains(p.logged.String(), "lameduck") })
	inLameduck := 0
	client := dns.Client{Timeout: 2 * time.Second}
	for {
		reply, _, err := client.Exchange(query("evil.example.", dns.TypeA), "127.0.0.1:"+p.port)
		if err != nil {
			break // the socket is closed
		}
		if reply.Rcode == dns.RcodeServerFailure {
			continue // the engine is closed, the socket not yet
		}
		if reply.Rcode != dns.RcodeNameError {
			t.Fatalf("unfiltered in the lameduck time:\n%v", reply)
		}
		inLameduck++
		queries++
	}
	if code := p.end(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if inLameduck < 10 {
		t.Errorf("only %d queries answered in the lameduck time", inLameduck)
	}
	if sum := storedSum(t, dir); sum != queries {
		t.Errorf("the store counts %d queries, %d were judged", sum, queries)
	}
}

// storedSum adds up the counts in the store, after the server has ended.
func storedSum(t *testing.T, dir string) int {
	t.Helper()
	script := "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select coalesce(sum(count), 0) from event').fetchone()[0])"
	out, err := exec.Command("python3", "-c", script, filepath.Join(dir, "mlbridge.db")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return number(t, string(out), `(\d+)`)
}

func TestQuitEndsAtOnceAndTheStoreLivesOn(t *testing.T) {
	up := startUpstream(t)
	dir := stateDir(t)
	web := strconv.Itoa(freePort(t))
	text := string(corefileFor("PORT", blockList(t)+"record.allow all\nstore.flush_ms 50\nstate_dir "+dir+"\n", up.addr))
	text = strings.Replace(text, "mlbridge", "prometheus 127.0.0.1:"+web+"\nmlbridge", 1)
	judged := 0
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGTERM} {
		p := launch(t, text) // its question is judged too
		expect(t, "127.0.0.1:"+p.port, "evil.example.", dns.RcodeNameError)
		judged += 2
		p.waitFor(t, "both verdicts are stored", func() bool {
			_, metrics := get(t, web, "/metrics")
			return number(t, metrics, `mlbridge_stored_total{[^}]*} (\d+)`) == 2
		})
		p.signal(t, signal)
		if code := p.end(t); code != 0 {
			t.Errorf("%v: exit code %d", signal, code)
		}
	}
	if sum := storedSum(t, dir); sum != judged {
		t.Errorf("the store counts %d queries, %d were judged", sum, judged)
	}
}

func TestThePluginReloadTakesChangesAndRefusesMistakes(t *testing.T) {
	t.Parallel() // it mostly waits
	up := startUpstream(t)
	text := string(corefileFor("PORT", blockList(t)+"block.ttl 100\n", up.addr))
	p := launch(t, strings.Replace(text, "mlbridge", "reload 2s 1s\nmlbridge", 1))
	good := p.read(t)
	ttl := func() uint32 {
		reply := expect(t, "127.0.0.1:"+p.port, "evil.example.", dns.RcodeNameError)
		return reply.Ns[0].Header().Ttl
	}
	p.write(t, strings.Replace(good, "block.ttl 100", "block.ttl 101", 1))
	p.waitFor(t, "the new time to live", func() bool { return ttl() == 101 })
	p.write(t, strings.Replace(good, "block.ttl 100", "block.ttl never", 1))
	p.waitFor(t, "the mistake in the log", func() bool { return strings.Contains(p.logged.String(), "Corefile changed but reload failed") })
	if !strings.Contains(p.logged.String(), `block.ttl: "never"`) || ttl() != 101 {
		t.Errorf("time to live %d\n%s", ttl(), p.logged)
	}
}

func TestAMistakeAtTheStartEndsWithItsLine(t *testing.T) {
	path := theProgram(t)
	corefile := file(t, "Corefile", withPorts(t, ".:PORT {\nbind 127.0.0.1\nmlbridge {\nblock.ttl 30\nsinkhole.ipv4 1.2.3\n}\n}\n"))
	out, err := exec.Command("timeout", "20", path, "-conf", corefile).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	if !strings.Contains(string(out), "Corefile:5 - mlbridge: sinkhole.ipv4: \"1.2.3\"") {
		t.Errorf("%s", out)
	}
}

func TestWithoutTheLibraryTheLoaderSaysWhatIsMissing(t *testing.T) {
	path := theProgram(t)
	binary, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The same program with a run path that leads nowhere.
	runPath := regexp.MustCompile(`-rpath,([^ ,]+)`).FindStringSubmatch(os.Getenv("CGO_LDFLAGS"))
	if runPath == nil {
		t.Fatal("CGO_LDFLAGS has no -rpath")
	}
	lost := bytes.ReplaceAll(binary, []byte(runPath[1]), []byte(strings.Repeat("/", len(runPath[1]))))
	copied := filepath.Join(t.TempDir(), "coredns")
	if err := os.WriteFile(copied, lost, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(copied, "-version").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 127 || !strings.Contains(string(out), "libmlbridge.so.0: cannot open shared object file") {
		t.Errorf("%v\n%s", err, out)
	}
}
