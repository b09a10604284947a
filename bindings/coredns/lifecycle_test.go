package coredns

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"
)

// failsToStop is a directive whose plugin reports an error when its instance is shut down: caddy then calls a reload
// failed although the new instance serves.
const failsToStop = "test_fails_to_stop"

func init() {
	plugin.Register(failsToStop, func(c *caddy.Controller) error {
		c.OnShutdown(func() error { return errors.New("told to fail") })
		return nil
	})
}

// corefile is a server on the loopback with a block of ours, the cache and an upstream.
func corefile(settings, upstream string) caddy.Input {
	return input(".:0 {\nbind 127.0.0.1\nmlbridge {\n" + settings + "\n}\ncache\nforward . " + upstream + "\n}\n")
}

func input(text string) caddy.Input {
	return caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"}
}

// start starts CoreDNS in this process and waits until it answers: caddy cannot stop a server that has not come so far.
func start(t *testing.T, in caddy.Input) *caddy.Instance {
	t.Helper()
	i, err := caddy.Start(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lookUp(address(i), "ready.evil.example."); err != nil {
		t.Fatal(err)
	}
	return i
}

// stop does what SIGTERM does.
func stop(t *testing.T, i *caddy.Instance) {
	t.Helper()
	if errs := i.ShutdownCallbacks(); len(errs) != 0 {
		t.Error(errs)
	}
	if err := i.Stop(); err != nil {
		t.Error(err)
	}
}

// address is where the instance's first server answers over UDP.
func address(i *caddy.Instance) string { return i.Servers()[0].LocalAddr().String() }

// lookUp asks a server for the address of a name.
func lookUp(addr, qname string) (*dns.Msg, error) {
	client := dns.Client{Timeout: 5 * time.Second}
	reply, _, err := client.Exchange(query(qname, dns.TypeA), addr)
	return reply, err
}

// expect asks and compares the code.
func expect(t *testing.T, addr, qname string, rcode int) *dns.Msg {
	t.Helper()
	reply, err := lookUp(addr, qname)
	if err != nil {
		t.Fatalf("%s: %v", qname, err)
	}
	if reply.Rcode != rcode {
		t.Errorf("%s: %s, want %s", qname, dns.RcodeToString[reply.Rcode], dns.RcodeToString[rcode])
	}
	return reply
}

// openBelow counts this process's descriptors of files in a directory: 0 once the library has closed its store.
func openBelow(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(target, dir) {
			count++
		}
	}
	return count
}

// held is how many engines the plugin holds.
func held() int {
	_, n := current()
	return n
}

func expectHeld(t *testing.T, want int, when string) {
	t.Helper()
	if n := held(); n != want {
		t.Errorf("%s: %d engines held, want %d", when, n, want)
	}
}

func TestVerdictsAreNotCachedAndCacheHitsAreJudged(t *testing.T) {
	up := startUpstream(t)
	list := file(t, "block", "")
	i := start(t, corefile("lists.block "+list, up.addr))
	defer stop(t, i)
	before := up.asked.Load()
	for range 3 {
		expect(t, address(i), "www.example.", dns.RcodeSuccess)
	}
	if n := up.asked.Load() - before; n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
	// The name becomes bad while CoreDNS has it cached. The library looks at its lists by itself.
	if err := os.WriteFile(list, []byte("www.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		reply, err := lookUp(address(i), "www.example.")
		if err != nil {
			t.Fatal(err)
		}
		if reply.Rcode == dns.RcodeNameError {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the list's change never came into force")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if n := up.asked.Load() - before; n != 1 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

func TestReloadsUnderLoadNeverAnswerUnfilteredAndLeakNothing(t *testing.T) {
	up := startUpstream(t)
	dir := stateDir(t)
	settings := blockList(t) + "record.allow all\nstate_dir " + dir + "\n"
	i := start(t, corefile(settings, up.addr))
	addr := address(i)
	expectHeld(t, 1, "after the start")

	var wg sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				for qname, want := range map[string]int{"evil.example.": dns.RcodeNameError, "good.evil.example.": dns.RcodeSuccess} {
					if reply, err := lookUp(addr, qname); err != nil || reply.Rcode != want {
						t.Errorf("%s: %v, %v", qname, err, reply)
						return
					}
				}
			}
		})
	}
	restart := func(in caddy.Input) error {
		next, err := i.Restart(in)
		i = next
		return err
	}
	for n := range 6 {
		changed := fmt.Sprintf("block.ttl %d\n", 100+n/2) // every other reload changes nothing
		if err := restart(corefile(settings+changed, up.addr)); err != nil {
			t.Fatal(err)
		}
		expectHeld(t, 1, "after a reload")
		if reply := expect(t, addr, "evil.example.", dns.RcodeNameError); reply.Ns[0].Header().Ttl != uint32(100+n/2) {
			t.Errorf("reload %d: %v", n, reply)
		}
	}
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.LocalAddr().(*net.UDPAddr).Port
	for what, bad := range map[string]caddy.Input{
		"a wrong setting":       corefile(settings+"sinkhole.ipv4 1.2.3\n", up.addr),
		"a later plugin fails":  corefile(settings+"block.ttl 7\n", "not/an/address"),
		"the port is taken":     input(fmt.Sprintf(".:%d {\nbind 127.0.0.1\nmlbridge {\n%sblock.ttl 7\n}\nforward . %s\n}\n", port, settings, up.addr)),
		"the Corefile is wrong": input(".:0 {\nmlbridge {\n}\nnonsense\n}\n"),
	} {
		if err := restart(bad); err == nil {
			t.Errorf("%s: the reload went through", what)
		}
		expectHeld(t, 1, what)
		expect(t, addr, "evil.example.", dns.RcodeNameError)
	}
	done.Store(true)
	wg.Wait()

	if openBelow(t, dir) == 0 {
		t.Error("the store was never open")
	}
	stop(t, i)
	expectHeld(t, 0, "after the stop")
	if n := openBelow(t, dir); n != 0 {
		t.Errorf("%d descriptors of the store are left", n)
	}
}

func TestAFailedFirstUseIsSweptByTheNext(t *testing.T) {
	up := startUpstream(t)
	i := start(t, input(".:0 {\nbind 127.0.0.1\nforward . "+up.addr+"\n}\n"))
	// The old Corefile has no block of ours, so nobody tells us that the new one failed.
	if _, err := i.Restart(corefile(blockList(t), "not/an/address")); err == nil {
		t.Fatal("the reload went through")
	}
	expectHeld(t, 1, "after the failed reload")
	i, err := i.Restart(corefile(blockList(t), up.addr))
	if err != nil {
		t.Fatal(err)
	}
	expectHeld(t, 1, "after the next reload")
	expect(t, address(i), "evil.example.", dns.RcodeNameError)
	stop(t, i)
	expectHeld(t, 0, "after the stop")
}

func TestAReloadThatFailsLateKeepsTheNewEngine(t *testing.T) {
	up := startUpstream(t)
	text := string(corefile(blockList(t), up.addr).Body())
	i := start(t, input(strings.Replace(text, "mlbridge {", failsToStop+"\nmlbridge {", 1)))
	addr := address(i)
	// The old instance's shutdown fails after the new one has begun to serve.
	if _, err := i.Restart(corefile(blockList(t)+"block.ttl 7\n", up.addr)); err == nil {
		t.Fatal("the shutdown did not fail")
	}
	if reply := expect(t, addr, "evil.example.", dns.RcodeNameError); reply.Ns[0].Header().Ttl != 7 {
		t.Errorf("%v", reply)
	}
	expectHeld(t, 1, "after the late failure")
	for _, instance := range caddy.Instances() {
		stop(t, instance)
	}
	expectHeld(t, 0, "after the stop")
}

func TestBlocksWithEqualSettingsHaveOneEngine(t *testing.T) {
	up := startUpstream(t)
	block := "mlbridge {\n" + blockList(t) + "}\nforward . " + up.addr + "\n}\n"
	other := strings.Replace(block, "mlbridge {", "mlbridge {\nblock.ttl 7", 1)
	i := start(t, input("a.example:0 {\nbind 127.0.0.1\n"+block+"evil.example:0 {\nbind 127.0.0.1\n"+block))
	expectHeld(t, 1, "two blocks with equal settings")
	expect(t, address(i), "evil.example.", dns.RcodeNameError)
	i, err := i.Restart(input("a.example:0 {\nbind 127.0.0.1\n" + block + "evil.example:0 {\nbind 127.0.0.1\n" + other))
	if err != nil {
		t.Fatal(err)
	}
	expectHeld(t, 2, "two blocks with different settings")
	if reply := expect(t, address(i), "evil.example.", dns.RcodeNameError); reply.Ns[0].Header().Ttl != 7 {
		t.Errorf("%v", reply)
	}
	stop(t, i)
	expectHeld(t, 0, "after the stop")
}

// twoBlocks are a server block that only watches and one, for evil.example, with a list.
func twoBlocks(t *testing.T, list, upstream string) caddy.Input {
	t.Helper()
	return input(".:0 {\nbind 127.0.0.1\nmlbridge {\nmode observe\n}\nforward . " + upstream + "\n}\n" +
		"evil.example:0 {\nbind 127.0.0.1\nmlbridge {\nlists.block " + list + "\n}\nforward . " + upstream + "\n}\n")
}

func TestABlockNeverGoesOnWithAnothersSettings(t *testing.T) {
	up := startUpstream(t)
	list := file(t, "block", "||evil.example^\n")
	if i, err := caddy.Start(twoBlocks(t, "/nowhere/list", up.addr)); err == nil {
		stop(t, i)
		t.Fatal("a start without a list that a block asks for")
	} else if !strings.Contains(err.Error(), "Corefile:11 - mlbridge: lists.block: /nowhere/list") {
		t.Error(err)
	}

	i := start(t, twoBlocks(t, list, up.addr))
	expect(t, address(i), "evil.example.", dns.RcodeNameError)
	for range 2 { // once more, from the last good settings to the last good settings
		var err error
		if i, err = i.Restart(twoBlocks(t, "/nowhere/list", up.addr)); err != nil {
			t.Fatal(err)
		}
		expect(t, address(i), "evil.example.", dns.RcodeNameError)
		expectHeld(t, 2, "with the last good settings of one block")
		if newest, _ := current(); !slices.ContainsFunc(newest, func(e *engine) bool { return e.lastGood }) {
			t.Error("no engine is marked as the last good one")
		}
	}
	// A block that is new has no last good settings.
	text := string(twoBlocks(t, list, up.addr).Body())
	added := "new.example:0 {\nbind 127.0.0.1\nmlbridge {\nlists.allow /nowhere/other\n}\nforward . " + up.addr + "\n}\n"
	if _, err := i.Restart(input(text + added)); err == nil || !strings.Contains(err.Error(), "/nowhere/other") {
		t.Errorf("%v", err)
	}
	expectHeld(t, 2, "after the failed reload")
	i, err := i.Restart(twoBlocks(t, list, up.addr))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, address(i), "evil.example.", dns.RcodeNameError)
	if newest, _ := current(); slices.ContainsFunc(newest, func(e *engine) bool { return e.lastGood }) {
		t.Error("still marked as the last good one")
	}
	stop(t, i)
	expectHeld(t, 0, "after the stop")
}

func TestShutdownCallbacksGiveTheEngineBackOnlyAtTheEnd(t *testing.T) {
	up := startUpstream(t)
	i := start(t, corefile(blockList(t), up.addr))
	for _, callback := range i.OnShutdown { // what SIGTERM runs before health's lameduck time
		if err := callback(); err != nil {
			t.Error(err)
		}
	}
	expectHeld(t, 1, "between the two kinds of callbacks")
	expect(t, address(i), "evil.example.", dns.RcodeNameError)
	for _, callback := range i.OnFinalShutdown {
		if err := callback(); err != nil {
			t.Error(err)
		}
	}
	expectHeld(t, 0, "after the final callbacks")
	expect(t, address(i), "evil.example.", dns.RcodeServerFailure) // the socket is still open for a moment
	if err := i.Stop(); err != nil {
		t.Error(err)
	}
}

func TestMessagesOfTheLibraryReachTheLog(t *testing.T) {
	up := startUpstream(t)
	dir := stateDir(t)
	if err := os.WriteFile(dir+"/mlbridge.db", []byte(strings.Repeat("no database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	logged := captureLog(t)
	i := start(t, corefile("record.allow all\nstate_dir "+dir+"\n", up.addr))
	defer stop(t, i)
	deadline := time.Now().Add(30 * time.Second)
	for n := 0; !strings.Contains(logged.String(), "plugin/mlbridge: ") || !strings.Contains(logged.String(), "mlbridge.db"); n++ {
		if time.Now().After(deadline) {
			t.Fatalf("the log never told of the store: %s", logged)
		}
		expect(t, address(i), fmt.Sprintf("n%d.example.", n), dns.RcodeSuccess)
		time.Sleep(20 * time.Millisecond)
	}
}
