package coredns

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/coredns/caddy"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

// Which engines exist, and when they are given back.
//
// A reload of CoreDNS makes a new caddy instance while the old one serves; a reload that fails drops the new one without a
// word to it. So the engines are kept here by instance, and given back when caddy no longer lists the instance: that is
// true for an old one after a reload (OnShutdown), for a new one that failed (OnRestartFailed of the old, or the next
// setup if the old had no mlbridge block), and not yet true at OnShutdown on SIGTERM, when servers go on answering
// through health's lameduck time. Then OnFinalShutdown, which runs after that time, gives them back.

// engine is one engine of the library, shared by the server blocks of a Corefile that have equal settings.
type engine struct {
	*mlbridge.Engine        // that of an older load too, if lastGood
	block            string // the first server block that has it: tells engines apart in the metrics
	lastGood         bool   // new settings failed, this is the engine from before
	draining         atomic.Bool
	lastError        atomic.Int64 // when a failed call was last logged, in Unix seconds
}

// load is one reading of a Corefile: the engines of one caddy instance, by settings and by server block.
type load struct {
	engines map[string]*engine
	blocks  map[string]*engine
}

// loadKey is where a caddy instance keeps its load.
type loadKey struct{}

var (
	loadsMu sync.Mutex
	loads   []*load // oldest first
)

// acquire returns the engine for a block: the one that another block of this Corefile opened with the same settings, or a
// new one. If the settings are right but a file or the model that they name cannot be used, a running server goes on with
// the last good engine of this block rather than without a filter.
func acquire(c *caddy.Controller, b block) (*engine, error) {
	sweep()
	l := loadOf(c)
	key := settingsKey(b.config)
	loadsMu.Lock()
	name := l.nameFor(c)
	have := l.engines[key]
	if have != nil {
		l.blocks[name] = have
	}
	loadsMu.Unlock()
	if have != nil {
		return have, nil
	}

	e := &engine{block: name}
	opened, err := mlbridge.Open(b.config)
	if err != nil {
		failure := b.at(err)
		if errors.Is(err, mlbridge.ErrConfig) {
			return nil, failure
		}
		if opened = lastGood(l, key, name, b.instance()); opened == nil {
			return nil, failure
		}
		log.Errorf("%v; going on with the last good settings", failure)
		e.lastGood = true
	}
	e.Engine = opened
	loadsMu.Lock()
	l.engines[key] = e
	l.blocks[name] = e
	loadsMu.Unlock()
	return e, nil
}

// lastGood finds what a block goes on with whose files cannot be used: an engine of an older load with these settings, or
// that of the same server block, or what the library keeps of the instance from a Corefile before. Never one of another
// block that has other settings: its lists and thresholds are for others.
func lastGood(l *load, key, name, instance string) *mlbridge.Engine {
	loadsMu.Lock()
	defer loadsMu.Unlock()
	held := false
	for _, older := range slices.Backward(loads) {
		held = held || len(older.engines) > 0
		if older == l {
			continue
		}
		if e := older.engines[key]; e != nil {
			return e.Engine
		}
		// Blocks with one address in common are told apart by their order, which may have changed.
		if e := older.blocks[name]; e != nil && older.blocks[numbered(name, 2)] == nil {
			return e.Engine
		}
	}
	if held {
		return nil
	}
	kept, err := mlbridge.Attach(instance)
	if err != nil {
		return nil
	}
	return kept
}

// loadOf returns the load of the controller's instance, and makes it at the instance's first mlbridge block.
func loadOf(c *caddy.Controller) *load {
	if l, ok := c.Get(loadKey{}).(*load); ok {
		return l
	}
	l := &load{engines: map[string]*engine{}, blocks: map[string]*engine{}}
	c.Set(loadKey{}, l)
	loadsMu.Lock()
	loads = append(loads, l)
	loadsMu.Unlock()

	c.OnShutdown(func() error { sweep(); return nil })
	c.OnRestartFailed(func() error { sweep(); return nil })
	c.OnFinalShutdown(func() error {
		release(func(other *load) bool { return other == l })
		return nil
	})
	return l
}

// sweep gives back the engines of instances that are gone.
func sweep() {
	live := map[*load]bool{}
	for _, instance := range caddy.Instances() {
		instance.StorageMu.RLock()
		l, ok := instance.Storage[loadKey{}].(*load)
		instance.StorageMu.RUnlock()
		if ok {
			live[l] = true
		}
	}
	release(func(l *load) bool { return !live[l] })
}

// release closes the engines of the loads that a function picks. What the library still had to say goes to the log.
func release(pick func(*load) bool) {
	var closing []*engine
	loadsMu.Lock()
	loads = slices.DeleteFunc(loads, func(l *load) bool {
		if !pick(l) {
			return false
		}
		closing = slices.AppendSeq(closing, maps.Values(l.engines))
		return true
	})
	kept := map[*mlbridge.Engine]bool{} // a newer load may go on with an engine of an older one
	for _, l := range loads {
		for _, e := range l.engines {
			kept[e.Engine] = true
		}
	}
	loadsMu.Unlock()
	for _, e := range closing {
		e.logMessages()
		if !kept[e.Engine] {
			e.Close()
		}
	}
}

// current returns the engines of the newest load, and how many engines are held in all.
func current() (newest []*engine, held int) {
	loadsMu.Lock()
	defer loadsMu.Unlock()
	all := map[*mlbridge.Engine]bool{}
	for _, l := range loads {
		for _, e := range l.engines {
			all[e.Engine] = true
		}
	}
	held = len(all)
	if len(loads) > 0 {
		newest = slices.Collect(maps.Values(loads[len(loads)-1].engines))
	}
	return newest, held
}

// logMessages passes the library's messages on to CoreDNS's log. One goroutine at a time does, so that they stay in order.
func (e *engine) logMessages() {
	if !e.draining.CompareAndSwap(false, true) {
		return
	}
	defer e.draining.Store(false)
	for {
		text, level, err := e.Message()
		if err != nil || text == "" {
			return
		}
		switch {
		case level <= 3:
			log.Error(text)
		case level == 4:
			log.Warning(text)
		case level <= 6:
			log.Info(text)
		default:
			log.Debug(text)
		}
	}
}

// settingsKey is equal for blocks with equal settings.
func settingsKey(config mlbridge.Config) string {
	var key strings.Builder
	fmt.Fprintf(&key, "%q", config.File)
	for _, k := range slices.Sorted(maps.Keys(config.Settings)) {
		fmt.Fprintf(&key, " %q=%q", k, config.Settings[k])
	}
	return key.String()
}

// nameFor is the first address of the server block, such as dns://.:53. Several blocks may have it, told apart by bind or
// view: those after the first get a number.
func (l *load) nameFor(c *caddy.Controller) string {
	first := c.Key
	if len(c.ServerBlockKeys) > 0 {
		first = c.ServerBlockKeys[0]
	}
	name := first
	for n := 2; l.blocks[name] != nil; n++ {
		name = numbered(first, n)
	}
	return name
}

func numbered(name string, n int) string { return fmt.Sprintf("%s#%d", name, n) }
