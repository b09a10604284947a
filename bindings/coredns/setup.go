package coredns

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

// name is the directive in the Corefile, and the plugin's name everywhere else.
const name = "mlbridge"

// defaultInstance lets all server blocks with equal settings share one engine, and a reload find it again.
const defaultInstance = "coredns"

var log = clog.NewWithPlugin(name)

func init() { plugin.Register(name, setup) }

// Directives returns CoreDNS's list of directives with mlbridge in its place: just before cache, so that every query is
// judged, cache hits too, and no verdict is cached. For a main program: dnsserver.SetDirectives(Directives(dnsserver.Directives)).
func Directives(list []string) []string {
	if slices.Contains(list, name) {
		return slices.Clone(list)
	}
	i := slices.Index(list, "cache")
	if i < 0 {
		i = len(list)
	}
	return slices.Insert(slices.Clone(list), i, name)
}

// block is one mlbridge block of a Corefile.
type block struct {
	config   mlbridge.Config
	settings []setting // where each of config's values stands
	except   plugin.Zones
	ede      bool
	ecs      bool
	place    // of the directive
}

// place is a line of the Corefile, or of a file that it imports.
type place struct {
	file string
	line int
}

// setting is where a key of the library stands in the Corefile.
type setting struct {
	key, value string
	place
}

func setup(c *caddy.Controller) error {
	b, err := parse(c)
	if err != nil {
		return plugin.Error(name, err)
	}
	engine, err := acquire(c, b)
	if err != nil {
		return plugin.Error(name, err)
	}
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		return &Handler{Next: next, engine: engine, except: b.except, ede: b.ede, ecs: b.ecs}
	})
	return nil
}

// parse reads the block. The plugin's own words are config, ede, client and except; every other key is a setting of the
// library, which judges it when the engine is opened.
func parse(c *caddy.Controller) (block, error) {
	b := block{ede: true, config: mlbridge.Config{
		Defaults: map[string]string{"instance": defaultInstance},
		Settings: map[string]string{},
	}}
	seen := false
	for c.Next() {
		if seen {
			return b, fmt.Errorf("%s:%d - %w", c.File(), c.Line(), plugin.ErrOnce)
		}
		seen = true
		b.place = place{c.File(), c.Line()}
		if len(c.RemainingArgs()) != 0 {
			return b, c.Err("settings stand in a block: mlbridge { ... }")
		}
		given := map[string]bool{}
		for c.NextBlock() {
			key := c.Val()
			if given[key] {
				return b, c.Errf("%s: given twice", key)
			}
			given[key] = true
			if err := b.read(c, key); err != nil {
				return b, err
			}
		}
	}
	return b, nil
}

// instance is the name of the library's instance, as far as the Corefile tells.
func (b *block) instance() string {
	if name, ok := b.config.Settings["instance"]; ok {
		return name
	}
	return defaultInstance
}

// read takes one line of the block.
func (b *block) read(c *caddy.Controller, key string) error {
	here := place{c.File(), c.Line()}
	args := c.RemainingArgs()
	if len(args) == 0 {
		return c.Errf("%s: needs a value", key)
	}
	value := strings.Join(args, ",")
	switch key {
	case "config":
		if len(args) != 1 || value == "" {
			return c.Err("config: takes the path of one file")
		}
		b.config.File = value
		if root := dnsserver.GetConfig(c).Root; root != "" && !filepath.IsAbs(value) {
			b.config.File = filepath.Join(root, value)
		}
		b.settings = append(b.settings, setting{key, b.config.File, here})
	case "ede":
		if value != "on" && value != "off" {
			return c.Errf("ede: %q is neither on nor off", value)
		}
		b.ede = value == "on"
	case "client":
		if value != "source" && value != "ecs" {
			return c.Errf("client: %q is neither source nor ecs", value)
		}
		b.ecs = value == "ecs"
	case "except":
		for _, arg := range args {
			zones := plugin.Host(arg).NormalizeExact()
			if len(zones) == 0 || slices.ContainsFunc(zones, isNoZone) {
				return c.Errf("except: %q is not a zone (all names below a zone belong to it; zones are separated by spaces)", arg)
			}
			b.except = append(b.except, zones...)
		}
	default:
		b.config.Settings[key] = value
		b.settings = append(b.settings, setting{key, value, here})
	}
	return nil
}

// isNoZone tells what CoreDNS takes for a zone and no query could ever be in: a wildcard, a list with commas, a network
// that is none, Unicode.
func isNoZone(zone string) bool {
	return strings.ContainsFunc(zone, func(r rune) bool { return r >= 0x80 || strings.ContainsRune("*,;/", r) })
}

// at adds the place in the Corefile to an error of the library: the line of the setting that the error names, or the
// block's first line.
func (b *block) at(err error) error {
	where := b.place
	var failure *mlbridge.Error
	if errors.As(err, &failure) {
		where = b.placeOf(failure)
	}
	return fmt.Errorf("%s:%d - %w", where.file, where.line, err)
}

// placeOf finds the setting that an error is about: the key that was being applied, else the one whose file the library's
// text begins with, else the longest key that the text names, as one key may be the beginning of another, else the first of
// the client group that it names, whose fault may be that a key is missing.
func (b *block) placeOf(failure *mlbridge.Error) place {
	where, longest := b.place, 0
	for _, s := range b.settings {
		if s.key == failure.Key {
			return s.place
		}
		for file := range strings.SplitSeq(s.value, ",") {
			if strings.HasPrefix(failure.Text, file+": ") {
				return s.place
			}
		}
		if len(s.key) > longest && strings.Contains(failure.Text, s.key) {
			where, longest = s.place, len(s.key)
		}
	}
	words := strings.SplitAfterN(failure.Text, ".", 3)
	if longest > 0 || len(words) < 3 || words[0] != "groups." {
		return where
	}
	for _, s := range b.settings {
		if strings.HasPrefix(s.key, words[0]+words[1]) {
			return s.place
		}
	}
	return where
}
