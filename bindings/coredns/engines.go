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
	*mlbridge.Engine
	block     string // the first server block that has it: tells engines apart in the metrics
	lastGood  bool   // new settings failed, this is the engine from before
	draining  atomic.Bool
	lastError atomic.Int64 // when a failed call was last logged, in Unix seconds
}

// load is one reading of a Corefile: the engines of one caddy instance, by settings.
type load struct {
	engines map[string]*engine
}

// loadKey is where a caddy instance keeps its load.
type loadKey struct{}

var (
	loadsMu sync.Mutex
	loads   []*load // oldest first
)

// acquire returns the engine for a block: the one that another block of this Corefile opened with the same settings, or a
// new one. If the settings are right but a file or the model that they name cannot be used, a running server goes on with
// the last good engine of the instance rather than without a filter.
func acquire(c *caddy.Controller, b block) (*engine, error) {
	sweep()
	l := loadOf(c)
	key := settingsKey(b.config)
	loadsMu.Lock()
	have := l.engines[key]
	loadsMu.Unlock()
	if have != nil {
		return have, nil
	}

	e := &engine{block: blockName(c)}
	opened, err := mlbridge.Open(b.config)
	if err != nil {
		failure := b.at(err)
		if errors.Is(err, mlbridge.ErrConfig) {
			return nil, failure
		}
		opened, err = mlbridge.Attach(b.config.Settings["instance"])
		if err != nil {
			return nil, failure
		}
		log.Errorf("%v; going on with the last good settings", failure)
		e.lastGood = true
	}
	e.Engine = opened
	loadsMu.Lock()
	l.engines[key] = e
	loadsMu.Unlock()
	return e, nil
}

// loadOf returns the load of the controller's instance, and makes it at the instance's first mlbridge block.
func loadOf(c *caddy.Controller) *load {
	if l, ok := c.Get(loadKey{}).(*load); ok {
		return l
	}
	l := &load{engines: map[string]*engine{}}
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
	loadsMu.Unlock()
	for _, e := range closing {
		e.logMessages()
		e.Close()
	}
}

// current returns the engines of the newest load, and how many engines are held in all.
func current() (newest []*engine, held int) {
	loadsMu.Lock()
	defer loadsMu.Unlock()
	for _, l := range loads {
		held += len(l.engines)
	}
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

// blockName is the first address of the server block, such as dns://.:53.
func blockName(c *caddy.Controller) string {
	if len(c.ServerBlockKeys) == 0 {
		return c.Key
	}
	return c.ServerBlockKeys[0]
}
