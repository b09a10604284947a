package coredns

import (
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

var (
	queryCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: name,
		Name:      "queries_total",
		Help:      "Counter of queries judged, by decision and by the action taken.",
	}, []string{"server", "decision", "action"})

	errorCount = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: name,
		Name:      "errors_total",
		Help:      "Counter of queries that could not be judged and were passed on, or met a stopping server.",
	}, []string{"server"})

	relayErrorCount = promauto.NewCounter(prometheus.CounterOpts{
		Namespace: plugin.Namespace,
		Subsystem: name,
		Name:      "metrics_errors_total",
		Help:      "Counter of scrapes at which the library's own metrics could not be read.",
	})
)

func init() {
	promauto.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: name,
		Name:      "engines",
		Help:      "Engines held, those of the Corefile being replaced included.",
	}, func() float64 {
		_, held := current()
		return float64(held)
	})
	promauto.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: plugin.Namespace,
		Subsystem: name,
		Name:      "last_good_engines",
		Help:      "Engines that go on with older settings, because those of the Corefile could not be put in force.",
	}, func() float64 {
		newest, _ := current()
		count := 0
		for _, e := range newest {
			if e.lastGood {
				count++
			}
		}
		return float64(count)
	})
	prometheus.MustRegister(relay{})
}

// actions and decisions are how many the C ABI has; a newer library's further ones are counted under the last column.
const (
	decisions = 3
	actions   = 6
)

// counters are the counters of one server: looked up once, as a look-up by labels costs ten times an increment.
type counters struct {
	server  string
	queries [decisions][actions]prometheus.Counter
	errors  prometheus.Counter
}

// verdict counts a query that was judged.
func (c *counters) verdict(v mlbridge.Verdict) {
	if int(v.Decision) < decisions && int(v.Action) < actions {
		c.queries[v.Decision][v.Action].Inc()
		return
	}
	queryCount.WithLabelValues(c.server, v.Decision.String(), v.Action.String()).Inc()
}

// countersFor returns the counters of the server that a query came in by. A Handler serves each address that its block is
// bound to, as a server of its own, and learns of them from their first queries.
func (h *Handler) countersFor(server string) *counters {
	known := h.counts.Load()
	if known != nil {
		for _, c := range *known {
			if c.server == server {
				return c
			}
		}
	}
	c := &counters{server: server, errors: errorCount.WithLabelValues(server)}
	for d := range c.queries {
		for a := range c.queries[d] {
			c.queries[d][a] = queryCount.WithLabelValues(server, mlbridge.Decision(d).String(), mlbridge.Action(a).String())
		}
	}
	grown := []*counters{c}
	if known != nil {
		grown = append(grown, *known...)
	}
	// Whoever comes too late looks its counters up again at its next query: they are the same ones.
	h.counts.CompareAndSwap(known, &grown)
	return c
}

// relay hands the library's own metrics to CoreDNS's registry, each with the label block: the server block whose engine it
// is. It describes nothing beforehand, as a newer library may have more. A scrape never fails because of it.
type relay struct{}

// Describe implements prometheus.Collector.
func (relay) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (relay) Collect(out chan<- prometheus.Metric) {
	newest, _ := current()
	for _, e := range newest {
		text, err := e.Metrics()
		if err != nil {
			relayErrorCount.Inc()
			continue
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(text))
		if err != nil {
			relayErrorCount.Inc()
			continue
		}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				out <- relayed{e.block, family, metric}
			}
		}
	}
}

// relayed is one metric of the library.
type relayed struct {
	block  string
	family *dto.MetricFamily
	metric *dto.Metric
}

// Desc implements prometheus.Metric.
func (r relayed) Desc() *prometheus.Desc {
	return prometheus.NewDesc(r.family.GetName(), r.family.GetHelp(), nil, nil)
}

// Write implements prometheus.Metric.
func (r relayed) Write(out *dto.Metric) error {
	label := "block"
	out.Label = append(slices.Clone(r.metric.Label), &dto.LabelPair{Name: &label, Value: &r.block})
	slices.SortFunc(out.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	out.Counter, out.Gauge, out.Untyped = r.metric.Counter, r.metric.Gauge, r.metric.Untyped
	out.Histogram, out.Summary = r.metric.Histogram, r.metric.Summary
	return nil
}
