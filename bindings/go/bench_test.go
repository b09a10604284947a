package mlbridge

import (
	"net/netip"
	"testing"
)

// BenchmarkClassifyWire is the call a DNS server makes; run it with -cpu 1,2.
func BenchmarkClassifyWire(b *testing.B) {
	e, err := Open(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	name := []byte("\x03www\x07example\x03com\x00")
	client := netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := e.ClassifyWire(name, client, 1); err != nil {
				b.Error(err)
			}
		}
	})
}
