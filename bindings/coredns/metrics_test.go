package coredns

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

// gathered is what CoreDNS would show at /metrics: one family by name.
func gathered(t *testing.T, name string) *dto.MetricFamily {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family
		}
	}
	t.Fatalf("no metric %s", name)
	return nil
}

func TestQueriesAreCountedByDecisionAndAction(t *testing.T) {
	h := unit(t, blockList(t))
	blocked := queryCount.WithLabelValues("", "block", "nxdomain")
	allowed := queryCount.WithLabelValues("", "allow", "pass")
	wasBlocked, wasAllowed := testutil.ToFloat64(blocked), testutil.ToFloat64(allowed)
	for range 3 {
		ask(t, h, query("evil.example.", dns.TypeA))
	}
	ask(t, h, query("good.evil.example.", dns.TypeA))
	if testutil.ToFloat64(blocked) != wasBlocked+3 || testutil.ToFloat64(allowed) != wasAllowed+1 {
		t.Errorf("%v blocked, %v allowed", testutil.ToFloat64(blocked)-wasBlocked, testutil.ToFloat64(allowed)-wasAllowed)
	}
}

func TestAVerdictOfANewerLibraryIsCounted(t *testing.T) {
	h := unit(t, "")
	h.countersFor("newer").verdict(mlbridge.Verdict{Decision: 9, Action: 77})
	if n := testutil.ToFloat64(queryCount.WithLabelValues("newer", "9", "77")); n != 1 {
		t.Errorf("counted %v times", n)
	}
}

func TestTheLibrarysMetricsAreRelayed(t *testing.T) {
	h := unit(t, "instance relayed\n"+blockList(t))
	ask(t, h, query("evil.example.", dns.TypeA))
	family := gathered(t, "mlbridge_classified_total")
	if family.GetType() != dto.MetricType_COUNTER || family.GetHelp() == "" {
		t.Errorf("%v", family)
	}
	metric := family.GetMetric()[0]
	if metric.GetCounter().GetValue() != 1 || metric.GetLabel()[0].GetName() != "block" {
		t.Errorf("%v", metric)
	}
	if histogram := gathered(t, "mlbridge_classify_seconds"); histogram.GetType() != dto.MetricType_HISTOGRAM {
		t.Errorf("%v", histogram)
	}
	if gauge := gathered(t, "coredns_mlbridge_engines").GetMetric()[0].GetGauge().GetValue(); gauge != 1 {
		t.Errorf("%v engines", gauge)
	}
	if failed := testutil.ToFloat64(relayErrorCount); failed != 0 {
		t.Errorf("%v scrapes failed", failed)
	}
}

func TestBlocksOfOneAddressAreToldApart(t *testing.T) {
	up := startUpstream(t)
	// Told apart by bind, as they may be by view.
	text := string(corefile("block.ttl 7", up.addr).Body())
	i := start(t, input(text+strings.Replace(strings.Replace(text, "ttl 7", "ttl 8", 1), "bind 127.0.0.1", "bind 127.0.0.2", 1)))
	defer stop(t, i)
	var blocks []string
	for _, metric := range gathered(t, "mlbridge_classified_total").GetMetric() {
		blocks = append(blocks, metric.GetLabel()[0].GetValue())
	}
	slices.Sort(blocks)
	if !slices.Equal(blocks, []string{"dns://.:0", "dns://.:0#2"}) {
		t.Error(blocks)
	}
}

func TestAServersCountersAreLookedUpOnce(t *testing.T) {
	h := unit(t, "")
	first, second := h.countersFor("dns://127.0.0.1:53"), h.countersFor("dns://[::1]:53")
	for range 3 { // a block that is bound to two addresses
		if h.countersFor("dns://127.0.0.1:53") != first || h.countersFor("dns://[::1]:53") != second {
			t.Fatal("looked up again")
		}
	}
}

func TestAClosedEngineDoesNotSpoilAScrape(t *testing.T) {
	h := unit(t, "")
	h.engine.Close()
	before := testutil.ToFloat64(relayErrorCount)
	gathered(t, "coredns_mlbridge_engines")
	if after := testutil.ToFloat64(relayErrorCount); after != before+1 {
		t.Errorf("counted %v failures", after-before)
	}
}

func TestNoLabelCarriesAName(t *testing.T) {
	h := unit(t, blockList(t))
	ask(t, h, query("secret.evil.example.", dns.TypeA))
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.Contains(family.String(), "secret") {
			t.Error(family)
		}
	}
}
