package mlbridge_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

// root is the project's checkout, which these tests belong to.
const root = "../.."

const typeA = 1

var client = netip.MustParseAddr("198.51.100.7")

// open opens an engine for one test.
func open(t testing.TB, settings map[string]string) *mlbridge.Engine {
	t.Helper()
	engine, err := mlbridge.Open(mlbridge.Config{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Close)
	return engine
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

// stateDir is a directory that the store accepts.
func stateDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func classify(t testing.TB, engine *mlbridge.Engine, name string) mlbridge.Verdict {
	t.Helper()
	verdict, err := engine.Classify(name, client, typeA)
	if err != nil {
		t.Fatalf("%q: %v", name, err)
	}
	return verdict
}

func TestHeaderIsTheLibrarys(t *testing.T) {
	ours, err := os.ReadFile("mlbridge.h")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.ReadFile(root + "/include/mlbridge.h")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, theirs) {
		t.Error("bindings/go/mlbridge.h differs from include/mlbridge.h: copy it again")
	}
}

func TestStatsHasTheHeadersFields(t *testing.T) {
	header, err := os.ReadFile("mlbridge.h")
	if err != nil {
		t.Fatal(err)
	}
	body := regexp.MustCompile(`(?s)typedef struct mlb_stats \{(.*?)\} mlb_stats;`).FindSubmatch(header)
	if body == nil {
		t.Fatal("no mlb_stats in the header")
	}
	fields := regexp.MustCompile(`uint64_t (\w+);`).FindAllSubmatch(body[1], -1)
	stats := reflect.TypeFor[mlbridge.Stats]()
	if len(fields) != stats.NumField() {
		t.Fatalf("the header has %d counters, Stats %d", len(fields), stats.NumField())
	}
	for i, field := range fields {
		want := strings.ReplaceAll(string(field[1]), "_", "")
		if got := stats.Field(i).Name; !strings.EqualFold(got, want) {
			t.Errorf("counter %d is %s in the header and %s in Stats", i, field[1], got)
		}
	}
}

func TestVerdictsFollowTheLists(t *testing.T) {
	engine := open(t, map[string]string{
		"lists.block":   file(t, "block", "||evil.example^\nexact.test\n"),
		"lists.allow":   file(t, "allow", "good.evil.example\n"),
		"block.action":  "sinkhole",
		"sinkhole.ipv4": "192.0.2.66",
		"sinkhole.ipv6": "2001:db8::66",
		"block.ttl":     "30",
	})
	for _, test := range []struct {
		name     string
		decision mlbridge.Decision
		source   mlbridge.Source
	}{
		{"evil.example", mlbridge.Block, mlbridge.SourceBlockList},
		{"WWW.Evil.Example.", mlbridge.Block, mlbridge.SourceBlockList},
		{"exact.test", mlbridge.Block, mlbridge.SourceBlockList},
		{"good.evil.example", mlbridge.Allow, mlbridge.SourceAllowList},
		{"other.test", mlbridge.Allow, mlbridge.SourceModel},
	} {
		v := classify(t, engine, test.name)
		if v.Decision != test.decision || v.Source != test.source {
			t.Errorf("%s: %v by %v, want %v by %v", test.name, v.Decision, v.Source, test.decision, test.source)
		}
		if test.decision != mlbridge.Block {
			continue
		}
		if v.Action != mlbridge.Sinkhole || v.TTL != 30 || v.SinkholeIPv4() != netip.MustParseAddr("192.0.2.66") ||
			v.SinkholeIPv6() != netip.MustParseAddr("2001:db8::66") {
			t.Errorf("%s: %+v", test.name, v)
		}
	}
}

func TestActionsAndTheirWords(t *testing.T) {
	list := file(t, "block", "evil.example\n")
	for _, action := range []mlbridge.Action{mlbridge.Pass, mlbridge.NXDomain, mlbridge.NoData, mlbridge.Refused, mlbridge.Drop} {
		engine := open(t, map[string]string{"lists.block": list, "block.action": action.String()})
		if v := classify(t, engine, "evil.example"); v.Action != action || v.SinkholeIPv4().IsValid() || v.SinkholeIPv6().IsValid() {
			t.Errorf("%v: %+v", action, v)
		}
	}
	if word := mlbridge.Action(250).String(); word != "250" {
		t.Errorf("an action of a newer library is called %q", word)
	}
}

func TestObserveModePasses(t *testing.T) {
	engine := open(t, map[string]string{"lists.block": file(t, "block", "evil.example\n"), "mode": "observe"})
	v := classify(t, engine, "evil.example")
	if v.Decision != mlbridge.Block || v.Action != mlbridge.Pass || v.Flags&mlbridge.FlagObserved == 0 {
		t.Errorf("%+v", v)
	}
}

func TestThresholdsVet(t *testing.T) {
	engine := open(t, map[string]string{"threshold.vet": "0", "threshold.block": "1"})
	if v := classify(t, engine, "www.wikipedia.org"); v.Decision != mlbridge.Vet || v.Action != mlbridge.Pass {
		t.Errorf("%+v", v)
	}
}

func TestTextAndWireFormAgree(t *testing.T) {
	engine := open(t, nil)
	long := strings.Repeat("\x3f"+strings.Repeat("a", 63), 3) + "\x3d" + strings.Repeat("b", 61)
	for _, test := range []struct{ text, wire string }{
		{"www.example.com", "\x03www\x07example\x03com\x00"},
		{"WwW.eXample.COM.", "\x03wWw\x07exaMple\x03com\x00"},
		{`a\000b\.c.example.com`, "\x05a\x00b.c\x07example\x03com\x00"},
		{"_dmarc.example.com", "\x06_dmarc\x07example\x03com\x00"},
		{strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61), long + "\x00"}, // 255 octets
	} {
		text, err := engine.Classify(test.text, client, typeA)
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
		}
		wire, err := engine.ClassifyWire([]byte(test.wire), client, typeA)
		if err != nil {
			t.Errorf("%q: %v", test.wire, err)
		}
		text.Flags, wire.Flags = 0, 0 // whether the score came from the cache
		if text != wire {
			t.Errorf("%q: %+v as text, %+v in wire form", test.text, text, wire)
		}
	}
	for _, name := range []string{"", "a..b", strings.Repeat("a", 64) + ".com", strings.Repeat("abcdefg.", 32) + "a"} {
		v, err := engine.Classify(name, client, typeA)
		if !errors.Is(err, mlbridge.ErrName) || v != (mlbridge.Verdict{}) {
			t.Errorf("%q: %+v, %v", name, v, err)
		}
	}
	if v := classify(t, engine, "."); v.Source != mlbridge.SourceSkipped {
		t.Errorf("root: %+v", v)
	}
	for _, wire := range []string{"", "\x03www", "\x40" + strings.Repeat("a", 64) + "\x00", "\x01a\x00trailing"} {
		if _, err := engine.ClassifyWire([]byte(wire), client, typeA); !errors.Is(err, mlbridge.ErrName) {
			t.Errorf("wire form %q: %v", wire, err)
		}
	}
}

func TestErrorsCanBeToldApart(t *testing.T) {
	for _, test := range []struct {
		config mlbridge.Config
		want   error
		key    string
		names  string
	}{
		{mlbridge.Config{Settings: map[string]string{"block.tll": "1"}}, mlbridge.ErrConfig, "block.tll", "block.tll"},
		{mlbridge.Config{Settings: map[string]string{"sinkhole.ipv4": "1.2.3"}}, mlbridge.ErrConfig, "sinkhole.ipv4", `"1.2.3"`},
		{mlbridge.Config{Settings: map[string]string{"threshold.vet": "0.9", "threshold.block": "0.1"}}, mlbridge.ErrConfig, "", "threshold"},
		{mlbridge.Config{Settings: map[string]string{"lists.block": "/nowhere/list"}}, mlbridge.ErrIO, "", "/nowhere/list"},
		{mlbridge.Config{File: "/nowhere/mlbridge.toml"}, nil, "", "/nowhere/mlbridge.toml"},
		{mlbridge.Config{Settings: map[string]string{"model.path": t.TempDir()}}, nil, "", "manifest.json"},
	} {
		engine, err := mlbridge.Open(test.config)
		if err == nil {
			engine.Close()
			t.Errorf("%v: opened", test.config)
			continue
		}
		var failure *mlbridge.Error
		if !errors.As(err, &failure) || failure.Key != test.key || !strings.Contains(err.Error(), test.names) {
			t.Errorf("%v: %v", test.config, err)
		}
		if test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%v: %v is not %v", test.config, err, test.want)
		}
	}
	if _, err := mlbridge.Attach("never-opened"); !errors.Is(err, mlbridge.ErrInvalid) {
		t.Errorf("attach to nothing: %v", err)
	}
}

func TestTextWithNULIsRefusedNotCut(t *testing.T) {
	for _, config := range []mlbridge.Config{
		{Settings: map[string]string{"block.ttl": "30\x00junk"}},
		{Settings: map[string]string{"block.ttl\x00junk": "30"}},
		{File: file(t, "mlbridge.toml", "block.ttl = 30\n") + "\x00junk"},
	} {
		engine, err := mlbridge.Open(config)
		if err == nil {
			engine.Close()
		}
		if !errors.Is(err, mlbridge.ErrConfig) || strings.Contains(err.Error(), "\x00") {
			t.Errorf("%q: %v", config, err)
		}
	}
	open(t, map[string]string{"instance": "go-nul"})
	if engine, err := mlbridge.Attach("go-nul\x00junk"); !errors.Is(err, mlbridge.ErrInvalid) {
		t.Errorf("attached to %p, %v", engine, err)
	}
}

func TestDefaultsThenFileThenSettings(t *testing.T) {
	config := mlbridge.Config{
		File:     file(t, "mlbridge.toml", "[block]\naction = \"refused\"\nttl = 5\n[lists]\nblock = [\""+file(t, "block", "evil.example\n")+"\"]\n"),
		Settings: map[string]string{"block.ttl": "7"},
		Defaults: map[string]string{"block.ttl": "9", "block.action": "nodata", "instance": "go-defaults"},
	}
	engine, err := mlbridge.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	if v := classify(t, engine, "evil.example"); v.Action != mlbridge.Refused || v.TTL != 7 {
		t.Errorf("%+v", v)
	}
	if same, err := mlbridge.Attach("go-defaults"); err != nil {
		t.Errorf("the default instance: %v", err)
	} else {
		same.Close()
	}
}

func TestCallsAllocateNothing(t *testing.T) {
	engine := open(t, nil)
	qname := []byte("\x03www\x07example\x03com\x00")
	name := "www.example.com"
	for _, from := range []netip.Addr{{}, client, netip.MustParseAddr("2001:db8::7")} {
		if n := testing.AllocsPerRun(1000, func() {
			if _, err := engine.ClassifyWire(qname, from, typeA); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("ClassifyWire, client %v: %v allocations", from, n)
		}
		if n := testing.AllocsPerRun(1000, func() {
			if _, err := engine.Classify(name, from, typeA); err != nil {
				t.Error(err)
			}
		}); n != 0 {
			t.Errorf("Classify, client %v: %v allocations", from, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := engine.Classify("a..b", client, typeA); err == nil {
			t.Error("no error")
		}
	}); n != 0 {
		t.Errorf("an error: %v allocations", n)
	}
}

func TestCloseWaitsForCallsAndEndsTheRest(t *testing.T) {
	for range 20 {
		engine := open(t, map[string]string{"close_timeout_ms": "500"})
		var wg sync.WaitGroup
		started := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					_, err := engine.Classify("n"+strconv.Itoa(i)+".example", client, typeA)
					if i == 0 {
						started <- struct{}{}
					}
					if errors.Is(err, mlbridge.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for range 4 {
			<-started
		}
		engine.Close()
		wg.Wait()
		engine.Close() // again: nothing
	}
}

func TestACloseThatWaitsHoldsNobodyUp(t *testing.T) {
	// A node that accepts and stays silent: Flush waits for a delivery that never comes.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	engine := open(t, map[string]string{
		"elasticsearch.urls": "http://" + silent.Addr().String(), "record.allow": "all", "close_timeout_ms": "100",
	})
	classify(t, engine, "a.example")
	flushed := make(chan error, 1)
	go func() { flushed <- engine.Flush(3 * time.Second) }()
	time.Sleep(100 * time.Millisecond) // Flush is under way
	closed := make(chan struct{})
	go func() {
		engine.Close()
		close(closed)
	}()
	time.Sleep(100 * time.Millisecond) // Close is under way
	var wg sync.WaitGroup
	for range 64 { // many goroutines, so that every part of the guard is met
		wg.Go(func() {
			if _, err := engine.Classify("b.example", client, typeA); err != nil && !errors.Is(err, mlbridge.ErrClosed) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	select {
	case <-closed:
		t.Error("calls were held up until Close had ended, or it did not wait for Flush")
	default:
	}
	if err := <-flushed; !errors.Is(err, mlbridge.ErrTimeout) {
		t.Errorf("flush: %v", err)
	}
	<-closed
}

func TestAStoreHeldByAnotherProcessSaysSo(t *testing.T) {
	dir := stateDir(t)
	holder := exec.CommandContext(t.Context(), "python3", "-c", `
import fcntl, sys
lock = open(sys.argv[1] + "/lock", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()`, dir)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer stdin.Close()
	if _, err := io.ReadFull(stdout, make([]byte, len("held"))); err != nil {
		t.Fatalf("the lock's holder: %v", err)
	}
	engine := open(t, map[string]string{"state_dir": dir, "record.allow": "all", "close_timeout_ms": "0"})
	classify(t, engine, "a.example")
	if err := engine.Flush(10 * time.Second); !errors.Is(err, mlbridge.ErrBusy) {
		t.Errorf("flush of a store that another process holds: %v", err)
	}
}

func TestACollectedEngineIsFreedAndOneInUseIsNot(t *testing.T) {
	dir := stateDir(t)
	func() {
		lost, err := mlbridge.Open(mlbridge.Config{Settings: map[string]string{"state_dir": dir, "record.allow": "all"}})
		if err != nil {
			t.Fatal(err)
		}
		classify(t, lost, "a.example")
		if err := lost.Flush(10 * time.Second); err != nil {
			t.Fatal(err)
		}
	}()
	if openBelow(t, dir) == 0 {
		t.Fatal("the store was never open")
	}
	used := open(t, nil)
	deadline := time.Now().Add(30 * time.Second)
	for openBelow(t, dir) != 0 {
		runtime.GC()
		classify(t, used, "b.example")
		if time.Now().After(deadline) {
			t.Fatal("an engine that nobody has any more keeps its store open")
		}
	}
}

// openBelow counts this process's descriptors of files in a directory.
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

func TestAfterCloseEveryCallSaysSo(t *testing.T) {
	engine := open(t, nil)
	engine.Close()
	calls := map[string]func() error{
		"Classify":     func() error { _, err := engine.Classify("a.example", client, 1); return err },
		"ClassifyWire": func() error { _, err := engine.ClassifyWire([]byte{0}, client, 1); return err },
		"ScoreBatch":   func() error { _, err := engine.ScoreBatch([]string{"a.example"}); return err },
		"Explain":      func() error { _, err := engine.Explain("a.example"); return err },
		"Flush":        func() error { return engine.Flush(time.Second) },
		"Stats":        func() error { _, err := engine.Stats(); return err },
		"Metrics":      func() error { _, err := engine.Metrics(); return err },
		"Message":      func() error { _, _, err := engine.Message(); return err },
		"SinkError":    func() error { _, err := engine.SinkError(); return err },
		"Reload":       func() error { return engine.Reload(mlbridge.Config{}) },
		"Reload wrong": func() error { return engine.Reload(mlbridge.Config{File: "/nowhere/mlbridge.toml"}) },
	}
	check := func() {
		t.Helper()
		for name, call := range calls {
			if err := call(); !errors.Is(err, mlbridge.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	check()
	// One that was never open is as good as a closed one.
	engine = &mlbridge.Engine{}
	check()
	engine.Close()
}

func TestInstanceIsOneEngine(t *testing.T) {
	settings := map[string]string{"instance": "go-shared", "lists.block": file(t, "block", "evil.example\n")}
	first, second := open(t, settings), open(t, settings)
	classify(t, first, "evil.example")
	stats, err := second.Stats()
	if err != nil || stats.Blocked != 1 {
		t.Errorf("the second handle sees %d blocked, %v", stats.Blocked, err)
	}
	first.Close()
	second.Close()

	// At rest, but there: what an adapter goes on with whose new settings fail.
	third, err := mlbridge.Attach("go-shared")
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if v := classify(t, third, "evil.example"); v.Decision != mlbridge.Block {
		t.Errorf("%+v", v)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	list := file(t, "block", "evil.example\n")
	engine := open(t, map[string]string{"lists.block": list})
	if err := engine.Reload(mlbridge.Config{Settings: map[string]string{"lists.block": list, "block.action": "refused"}}); err != nil {
		t.Fatal(err)
	}
	if v := classify(t, engine, "evil.example"); v.Action != mlbridge.Refused {
		t.Errorf("after the reload: %+v", v)
	}
	err := engine.Reload(mlbridge.Config{Settings: map[string]string{"lists.block": "/nowhere/list"}})
	if !errors.Is(err, mlbridge.ErrIO) {
		t.Errorf("reload with a list that is not there: %v", err)
	}
	if v := classify(t, engine, "evil.example"); v.Action != mlbridge.Refused {
		t.Errorf("after the failed reload: %+v", v)
	}
}

func TestFlushMakesEventsDurable(t *testing.T) {
	engine := open(t, map[string]string{"state_dir": stateDir(t), "record.allow": "all", "lists.block": file(t, "block", "evil.example\n")})
	for i := range 100 {
		classify(t, engine, "n"+strconv.Itoa(i)+".example")
	}
	classify(t, engine, "evil.example")
	if err := engine.Flush(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	s, err := engine.Stats()
	if err != nil {
		t.Fatal(err)
	}
	recorded := s.NotRecorded + s.SampledOut + s.Coalesced + s.DroppedQueue + s.DroppedStore + s.DroppedForked + s.Queued + s.Stored
	if s.Classified != 101 || s.Classified != s.Skipped+recorded || s.Queued != 0 || s.Stored != 101 {
		t.Errorf("%+v", s)
	}
}

func TestFlushForeverIsNotAtOnce(t *testing.T) {
	engine := open(t, map[string]string{"state_dir": stateDir(t), "record.allow": "all"})
	for i := range 100 {
		classify(t, engine, "n"+strconv.Itoa(i)+".example")
	}
	if err := engine.Flush(math.MaxInt64); err != nil {
		t.Error(err)
	}
}

func TestEmptyWireNameIsNoName(t *testing.T) {
	engine := open(t, nil)
	for _, qname := range [][]byte{nil, {}} {
		if v, err := engine.ClassifyWire(qname, client, typeA); !errors.Is(err, mlbridge.ErrName) || v != (mlbridge.Verdict{}) {
			t.Errorf("%#v: %+v, %v", qname, v, err)
		}
	}
}

// otherLibrary makes a libmlbridge.so.0 with the functions of the header but one, and a number of the ABI, and returns its
// folder. Whoever calls another function than the first two ends the process.
func otherLibrary(t *testing.T, abi int, without string) string {
	t.Helper()
	header, err := os.ReadFile("mlbridge.h")
	if err != nil {
		t.Fatal(err)
	}
	text := "unsigned mlb_abi_version(void) { return " + strconv.Itoa(abi) + "; }\nconst char *mlb_version(void) { return \"0.0.1\"; }\n"
	written := map[string]bool{"mlb_abi_version": true, "mlb_version": true, without: true}
	for _, function := range regexp.MustCompile(`\b(mlb_\w+)\(`).FindAllSubmatch(header, -1) {
		if name := string(function[1]); !written[name] {
			written[name] = true
			text += "void " + name + "(void) { __builtin_trap(); }\n"
		}
	}
	source := file(t, "other.c", text)
	dir := t.TempDir()
	build := exec.Command("cc", "-shared", "-Wl,-soname,libmlbridge.so.0", "-o", filepath.Join(dir, "libmlbridge.so.0"), source)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	return dir
}

// runWith runs a test of this program in a process of its own, with the library in a folder.
func runWith(library, test string) (string, error) {
	self := exec.Command(os.Args[0], "-test.run", "^"+test+"$", "-test.v")
	self.Env = append(os.Environ(), "LD_LIBRARY_PATH="+library, "MLBRIDGE_TEST_ABI=1")
	out, err := self.CombinedOutput()
	return string(out), err
}

func TestALibraryWithAnotherABIIsRefused(t *testing.T) {
	out, err := runWith(otherLibrary(t, 0, ""), "TestOpenForAnotherABI")
	if err != nil || !strings.Contains(out, "library 0.0.1 has ABI 0, this program was built for 1") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestALibraryThatLacksAFunctionEndsTheStartNotACall(t *testing.T) {
	out, err := runWith(otherLibrary(t, 1, "mlb_message"), "NoTest")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 127 || !strings.Contains(out, "undefined symbol: mlb_message") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOpenForAnotherABI runs in a process of its own, with the library of TestALibraryWithAnotherABIIsRefused.
func TestOpenForAnotherABI(t *testing.T) {
	if os.Getenv("MLBRIDGE_TEST_ABI") == "" {
		t.Skip("for another test")
	}
	_, err := mlbridge.Open(mlbridge.Config{})
	_, err2 := mlbridge.Attach("none")
	if !errors.Is(err, mlbridge.ErrABI) || !errors.Is(err2, mlbridge.ErrABI) {
		t.Errorf("%v, %v", err, err2)
	}
	t.Log(err)
}

func TestMessageWaitsForTheHost(t *testing.T) {
	dir := stateDir(t)
	if err := os.WriteFile(filepath.Join(dir, "mlbridge.db"), bytes.Repeat([]byte("no database"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	engine := open(t, map[string]string{"state_dir": dir, "record.allow": "all"})
	// The first event wakes the worker, which finds the file, sets it aside and says so.
	deadline := time.Now().Add(30 * time.Second)
	for classify(t, engine, "first.example").Flags&mlbridge.FlagMessage == 0 {
		if time.Now().After(deadline) {
			t.Fatal("no verdict says that a message waits")
		}
		time.Sleep(10 * time.Millisecond)
	}
	var texts strings.Builder
	for !strings.Contains(texts.String(), "mlbridge.db") {
		text, level, err := engine.Message()
		if err != nil || level < 0 || level > 7 {
			t.Fatalf("message %q, level %d, %v", text, level, err)
		}
		if text == "" && time.Now().After(deadline) {
			t.Fatalf("no message names the file: %s", &texts)
		}
		texts.WriteString(text)
	}
}

func TestScoreBatch(t *testing.T) {
	engine := open(t, nil)
	names := []string{"www.wikipedia.org", "", "two..dots", "kq3v9z7x1w8r.example", "WWW.Wikipedia.ORG."}
	scores, err := engine.ScoreBatch(names)
	if err != nil {
		t.Fatal(err)
	}
	if len(scores) != len(names) || !math.IsNaN(float64(scores[2])) || scores[0] != scores[4] {
		t.Errorf("%v", scores)
	}
	if v := classify(t, engine, names[0]); v.Score != scores[0] {
		t.Errorf("Classify gives %v, ScoreBatch %v", v.Score, scores[0])
	}
	if scores, err := engine.ScoreBatch(nil); err != nil || len(scores) != 0 {
		t.Errorf("of nothing: %v, %v", scores, err)
	}
}

func TestExplainIsJSON(t *testing.T) {
	engine := open(t, nil)
	text, err := engine.Explain("www.wikipedia.org")
	if err != nil {
		t.Fatal(err)
	}
	var parts map[string]any
	if err := json.Unmarshal(text, &parts); err != nil || parts["score"] == nil {
		t.Errorf("%s: %v", text, err)
	}
	if _, err := engine.Explain("two..dots"); !errors.Is(err, mlbridge.ErrName) {
		t.Errorf("of no name: %v", err)
	}
}

func TestMetricsCountCalls(t *testing.T) {
	engine := open(t, nil)
	classify(t, engine, "www.wikipedia.org")
	text, err := engine.Metrics()
	if err != nil || !strings.Contains(text, "\nmlbridge_classified_total 1\n") {
		t.Errorf("%v:\n%s", err, text)
	}
	if text, err := engine.SinkError(); err != nil || text != "" {
		t.Errorf("a delivery that was never asked for failed: %q, %v", text, err)
	}
}

func TestGoldenScores(t *testing.T) {
	files, err := filepath.Glob(root + "/models/*/golden.tsv")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden scores: %v", err)
	}
	for _, golden := range files {
		model := filepath.Dir(golden)
		names, want := readGolden(t, golden)
		engine := open(t, map[string]string{"model.path": model})
		scores, err := engine.ScoreBatch(names)
		if err != nil {
			t.Fatal(err)
		}
		direct := scoresFromC(t, model, names)
		for i, name := range names {
			if math.Abs(float64(scores[i])-want[i]) > 1e-5 {
				t.Errorf("%s: %q scores %v, golden %v", model, name, scores[i], want[i])
			}
			if math.Float32bits(scores[i]) != direct[i] {
				t.Errorf("%s: %q scores %08x through Go, %08x in C", model, name, math.Float32bits(scores[i]), direct[i])
			}
			if v := classify(t, engine, name); v.Source == mlbridge.SourceModel && v.Score != scores[i] {
				t.Errorf("%s: %q scores %v in Classify, %v in ScoreBatch", model, name, v.Score, scores[i])
			}
		}
	}
}

// readGolden reads lines of name, tab, score, below a line of titles.
func readGolden(t *testing.T, path string) (names []string, scores []float64) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, score, found := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		if !found || score == "score" {
			continue
		}
		value, err := strconv.ParseFloat(score, 64)
		if err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		names, scores = append(names, name), append(scores, value)
	}
	if len(names) == 0 {
		t.Fatalf("%s: no scores", path)
	}
	return names, scores
}

// scoresFromC asks the same library from a C program.
func scoresFromC(t *testing.T, model string, names []string) []uint32 {
	t.Helper()
	program := filepath.Join(t.TempDir(), "scores")
	args := append([]string{"-I.", "testdata/scores.c", "-o", program}, strings.Fields(os.Getenv("CGO_LDFLAGS"))...)
	if out, err := exec.Command("cc", append(args, "-lmlbridge")...).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	out, err := exec.Command(program, append([]string{model}, names...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	var bits []uint32
	for line := range strings.Lines(string(out)) {
		value, err := strconv.ParseUint(strings.TrimSpace(line), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		bits = append(bits, uint32(value))
	}
	if len(bits) != len(names) {
		t.Fatalf("%d scores for %d names", len(bits), len(names))
	}
	return bits
}

func TestBuildWithoutCgoSaysSo(t *testing.T) {
	build := exec.Command("go", "build", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "CGO_ENABLED_1") {
		t.Errorf("%v\n%s", err, out)
	}
}
