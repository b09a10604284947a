package coredns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

func TestDirectivesPutsItBeforeCache(t *testing.T) {
	list := Directives([]string{"errors", "cache", "forward"})
	if !slices.Equal(list, []string{"errors", "mlbridge", "cache", "forward"}) {
		t.Error(list)
	}
	if again := Directives(list); !slices.Equal(again, list) {
		t.Error(again)
	}
}

func TestBlocksThatAreRight(t *testing.T) {
	list := file(t, "block", "evil.example\n")
	config := file(t, "mlbridge.toml", "mode = \"observe\"\n")
	for _, text := range []string{
		"mlbridge",
		"mlbridge {\n}",
		"mlbridge {\nblock.action sinkhole\nsinkhole.ipv4 192.0.2.66\nsinkhole.ipv6 2001:db8::66\nblock.ttl 30\n}",
		"mlbridge {\nlists.block " + list + " " + list + "\n}", // words become a list
		"mlbridge {\nlists.block " + list + "," + list + "\n}",
		"mlbridge {\nconfig " + config + "\nede off\nclient ecs\nexcept example.org 10.0.0.0/8\n}",
		"mlbridge {\ngroups.guests.cidr 10.0.0.0/8 192.168.0.0/16\ngroups.guests.mode observe\n}",
	} {
		c := caddy.NewTestController("dns", text)
		if err := setup(c); err != nil {
			t.Errorf("%s\n%v", text, err)
			continue
		}
		if newest, _ := current(); len(newest) != 1 || newest[0].lastGood {
			t.Errorf("%s\nnot in force: %v", text, newest)
		}
	}
	sweep()
}

func TestBlocksThatAreWrongNameTheLine(t *testing.T) {
	list := file(t, "block", "evil.example\n")
	for _, test := range []struct{ text, line, says string }{
		{"mlbridge here {\n}", ":1", "mlbridge { ... }"},
		{"mlbridge {\nblock.ttl 30\nblock.ttl 31\n}", ":3", "given twice"},
		{"mlbridge {\nblock.ttl 30\n\n\nsinkhole.ipv4 1.2.3\nblock.action nxdomain\n}", ":5", `"1.2.3"`},
		{"mlbridge {\nblock.action nxdomain\nblock.tll 30\n}", ":3", "block.tll"},
		{"mlbridge {\nblock.action\n}", ":2", "needs a value"},
		{"mlbridge {\nblock.ttl 30\nede perhaps\n}", ":3", "perhaps"},
		{"mlbridge {\nblock.ttl 30\nclient proxy\n}", ":3", "proxy"},
		{"mlbridge {\nexcept a..b\n}", ":2", "a..b"},
		{"mlbridge {\nblock.ttl 30\nthreshold.vet 0.9\nthreshold.block 0.1\n}", ":", "threshold"},
		{"mlbridge {\nblock.ttl 30\nblock.action sinkhole\n}", ":3", "sinkhole"},
		{"mlbridge {\nblock.ttl 30\nvet.action sinkhole\n}", ":3", "vet.action"},
		{"mlbridge {\ninstance nothing-to-fall-back-on\nlists.allow " + list + "\nlists.block /nowhere/list\n}", ":4", "/nowhere/list"},
		{"mlbridge {\ninstance nothing-to-fall-back-on\nconfig /nowhere/mlbridge.toml\n}", ":3", "/nowhere/mlbridge.toml"},
		{"mlbridge {\nblock.ttl 30\nconfig " + file(t, "bad.toml", "block.ttl = \"never\"\n") + "\n}", ":3", "never"},
		{"mlbridge {\nblock.ttl 30\nconfig a.toml b.toml\n}", ":3", "one file"},
		{"mlbridge {\nconfig \"\"\n}", ":2", "one file"},
		{"mlbridge {\nexcept a.example,b.example\n}", ":2", "separated by spaces"},
		{"mlbridge {\nede on\nexcept a.example *.example\n}", ":3", "*.example"},
		{"mlbridge {\nexcept bücher.example\n}", ":2", "bücher.example"},
		{"mlbridge {\nexcept 10.0.0.0/33\n}", ":2", "10.0.0.0/33"},
		{"mlbridge {\nblock.ttl 30\ngroups.guests.mode observe\n}", ":3", "groups.guests.cidr"},
		{"mlbridge\nmlbridge", ":2", "once"},
	} {
		err := setup(caddy.NewTestController("dns", test.text))
		if err == nil {
			t.Errorf("no error:\n%s", test.text)
			continue
		}
		if !strings.Contains(err.Error(), "Testfile"+test.line) && test.line != "" || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s\n%v", test.text, err)
		}
	}
	sweep()
}

func TestRelativeConfigIsBelowRoot(t *testing.T) {
	c := caddy.NewTestController("dns", "mlbridge {\nconfig etc/mlbridge.toml\n}")
	dnsserver.GetConfig(c).Root = "/srv"
	b, err := parse(c)
	if err != nil || b.config.File != "/srv/etc/mlbridge.toml" {
		t.Errorf("%q, %v", b.config.File, err)
	}
}

func TestInstanceIsAlwaysSet(t *testing.T) {
	config := file(t, "mlbridge.toml", "instance = \"of-the-file\"\n")
	for text, want := range map[string]string{
		"": defaultInstance, "instance of-the-block\n": "of-the-block", "config " + config + "\n": "of-the-file",
		"config " + config + "\ninstance of-both\n": "of-both",
	} {
		h := unit(t, text+"block.ttl 1234\n")
		attached, err := mlbridge.Attach(want)
		if err != nil {
			t.Errorf("%q: no instance %s", text, want)
			continue
		}
		if _, err := h.engine.Classify(want+".example", netip.Addr{}, 1); err != nil {
			t.Fatal(err)
		}
		if stats, err := attached.Stats(); err != nil || stats.Classified != 1 {
			t.Errorf("%q: not the engine of the instance %s", text, want)
		}
		attached.Close()
	}
}

func TestAMistakeInAnImportedFileIsNamedThere(t *testing.T) {
	imported := file(t, "settings", "\n\nblock.action nxdomain\nblock.ttl never\n")
	_, err := caddy.Start(input(".:0 {\nmlbridge {\nmode enforce\nimport " + imported + "\n}\n}\n"))
	if err == nil || !strings.Contains(err.Error(), imported+":4 - mlbridge: block.ttl") {
		t.Errorf("%v", err)
	}
}

func TestEqualBlocksOfACorefileShareOneEngine(t *testing.T) {
	c := caddy.NewTestController("dns", "mlbridge {\nblock.ttl 30\n}")
	b, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	first, err := acquire(c, b)
	if err != nil {
		t.Fatal(err)
	}
	defer sweep()
	loadsMu.Lock()
	l := loads[len(loads)-1]
	loadsMu.Unlock()
	if have := l.engines[settingsKey(b.config)]; have != first {
		t.Fatal("the engine is not kept")
	}
	other := mlbridge.Config{Settings: map[string]string{"instance": "coredns", "block.ttl": "31"}}
	if settingsKey(other) == settingsKey(b.config) {
		t.Error("other settings, same key")
	}
}

func TestAFileThatCannotBeReadFallsBackOnTheLastGoodEngine(t *testing.T) {
	good := unit(t, "instance fallback\n"+blockList(t))
	missing := "instance fallback\nlists.block /nowhere/list"
	c := caddy.NewTestController("dns", "mlbridge {\n"+missing+"\n}")
	b, err := parse(c)
	if err != nil {
		t.Fatal(err)
	}
	engine, err := acquire(c, b)
	if err != nil {
		t.Fatal(err)
	}
	defer sweep()
	if !engine.lastGood || good.engine.lastGood {
		t.Error("not marked as the last good engine")
	}
	if v, err := engine.Classify("evil.example", netip.Addr{}, 1); err != nil || v.Decision != mlbridge.Block {
		t.Errorf("%+v, %v", v, err)
	}

	// A setting that is wrong in itself is the Corefile's fault, whatever there is to fall back on.
	wrong := caddy.NewTestController("dns", "mlbridge {\ninstance fallback\nblock.ttl never\n}")
	if err := setup(wrong); !errors.Is(err, mlbridge.ErrConfig) {
		t.Errorf("%v", err)
	}
}
