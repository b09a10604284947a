package mlbridge_test

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"

	mlbridge "github.com/mlbridge/mlbridge/bindings/go"
)

// An engine with a block list judges a name that a client asked for.
func Example() {
	dir, err := os.MkdirTemp("", "mlbridge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	list := filepath.Join(dir, "block.txt")
	if err := os.WriteFile(list, []byte("||evil.example^\n"), 0o600); err != nil {
		log.Fatal(err)
	}

	engine, err := mlbridge.Open(mlbridge.Config{Settings: map[string]string{
		"lists.block":  list,
		"block.action": "sinkhole", "sinkhole.ipv4": "192.0.2.66",
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	verdict, err := engine.Classify("www.evil.example", netip.MustParseAddr("198.51.100.7"), 1)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(verdict.Decision, verdict.Action, verdict.SinkholeIPv4(), "by", verdict.Source)
	// Output: block sinkhole 192.0.2.66 by blocklist
}

// Errors say what is wrong in the library's words and can be told apart.
func ExampleOpen() {
	_, err := mlbridge.Open(mlbridge.Config{Settings: map[string]string{"sinkhole.ipv4": "1.2.3"}})
	var failure *mlbridge.Error
	fmt.Println(errors.Is(err, mlbridge.ErrConfig), errors.As(err, &failure), failure.Key)
	fmt.Println(err)
	// Output:
	// true true sinkhole.ipv4
	// mlbridge: sinkhole.ipv4: "1.2.3" is not an IPv4 address
}

// What is no domain name gets an error and the zero verdict, which passes.
func ExampleEngine_Classify() {
	engine, err := mlbridge.Open(mlbridge.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	verdict, err := engine.Classify("two..dots", netip.Addr{}, 1)
	fmt.Println(errors.Is(err, mlbridge.ErrName), verdict.Action)
	// Output: true pass
}
