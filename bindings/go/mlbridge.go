//go:build cgo

// Package mlbridge asks libmlbridge about domain names: a machine-learning score, a decision (allow, vet, block) and what
// a DNS server should answer, in about a microsecond and without leaving the process.
//
// An Engine is safe for use by any number of goroutines. Classify and ClassifyWire do no I/O, wait for nothing and
// allocate nothing. The package holds no policy and starts no goroutine: it passes arguments to the C library and hands
// back what that says. The reference of the settings is the project's README.
//
// Building needs cgo and the library: -lmlbridge by default (CGO_LDFLAGS="-L/folder" where the linker does not look by
// itself), the tag mlbridge_pkgconfig takes the flags from pkg-config, and the tag mlbridge_static links libmlbridge.a.
package mlbridge

/*
#include <stddef.h>
#include <stdlib.h>
#include "mlbridge.h"

#cgo noescape mlb_classify
#cgo nocallback mlb_classify
#cgo noescape mlb_classify_wire
#cgo nocallback mlb_classify_wire

// The Go struct Verdict has this very layout.
_Static_assert(sizeof(mlb_verdict) == 64 && offsetof(mlb_verdict, flags) == 8 && offsetof(mlb_verdict, ttl) == 12 &&
               offsetof(mlb_verdict, sinkhole4) == 16 && offsetof(mlb_verdict, sinkhole6) == 20 &&
               offsetof(mlb_verdict, fpr) == 36 && offsetof(mlb_verdict, model) == 40, "mlb_verdict has changed");
*/
import "C"

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"
)

// The compiler refuses an index other than 0 here: the numbers and the layout of this package are those of the header.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(Verdict{})-64]
	_ = [1]struct{}{}[unsafe.Offsetof(Verdict{}.Flags)-8]
	_ = [1]struct{}{}[unsafe.Offsetof(Verdict{}.sinkhole4)-16]
	_ = [1]struct{}{}[unsafe.Offsetof(Verdict{}.FPR)-36]
	_ = [1]struct{}{}[unsafe.Offsetof(Verdict{}.Model)-40]
	_ = [1]struct{}{}[unsafe.Sizeof(Stats{})-C.sizeof_mlb_stats]
	_ = [1]struct{}{}[ErrName-C.MLB_E_NAME]
	_ = [1]struct{}{}[ErrPanic-C.MLB_E_PANIC]
	_ = [1]struct{}{}[Block-C.MLB_BLOCK]
	_ = [1]struct{}{}[Drop-C.MLB_DROP]
	_ = [1]struct{}{}[SourceSkipped-C.MLB_SOURCE_SKIPPED]
	_ = [1]struct{}{}[FlagMessage-C.MLB_FLAG_MESSAGE]
)

// statusOK is no error, so it is not among the exported ones.
const statusOK Status = C.MLB_OK

// errSize is enough for the library's longest error text; longer ones are cut.
const errSize = 512

// Config says how to open an engine. The zero value is the library's defaults: the embedded model, nothing on disk.
type Config struct {
	Defaults map[string]string // single settings that File and Settings win over
	File     string            // a TOML file with settings; empty for none
	Settings map[string]string // single settings by key, such as "block.action"; they win over File
}

// Engine is a loaded model with its policy and store. Make one with Open or Attach, and Close it.
type Engine struct {
	guard   guard
	ptr     *C.mlb_engine // nil once closed; written under guard.lock
	cleanup runtime.Cleanup
}

// Version returns the version of the library that the program runs with.
func Version() string { return C.GoString(C.mlb_version()) }

// Open reads the settings, the lists and the model and returns an engine. It makes no network connection. Errors are an
// *Error that names the setting or the file; errors.Is tells ErrConfig, ErrIO and ErrModel apart.
//
// Engines opened with the same setting "instance" and otherwise equal settings are one engine, counted.
func Open(config Config) (*Engine, error) {
	if err := checkABI(); err != nil {
		return nil, err
	}
	cfg, err := newConfig(config)
	if err != nil {
		return nil, err
	}
	defer C.mlb_config_free(cfg)

	var ptr *C.mlb_engine
	var text [errSize]C.char
	if status := C.mlb_init(cfg, &ptr, &text[0], errSize); status != C.MLB_OK {
		return nil, explained(Status(status), "", &text)
	}
	return newEngine(ptr), nil
}

// Attach returns the newest engine of an instance, as another reference to it: what an adapter goes on with whose new
// settings failed. ErrInvalid if this process never had one.
func Attach(instance string) (*Engine, error) {
	if err := checkABI(); err != nil {
		return nil, err
	}
	if strings.ContainsRune(instance, 0) {
		return nil, ErrInvalid
	}
	name := C.CString(instance)
	defer C.free(unsafe.Pointer(name))

	var ptr *C.mlb_engine
	if status := C.mlb_attach(name, &ptr); status != C.MLB_OK {
		return nil, Status(status)
	}
	return newEngine(ptr), nil
}

// Close gives the engine back once the calls that run have ended; later ones get ErrClosed. The last reference's Close
// stores what is queued and waits at most for the setting "close_timeout_ms": keep it off the path of a query. Closing
// again does nothing.
func (e *Engine) Close() {
	e.guard.lock()
	ptr := e.ptr
	e.ptr = nil
	e.guard.unlock()
	if ptr == nil {
		return
	}
	e.cleanup.Stop()
	runtime.KeepAlive(e) // else the cleanup might be on its way already, and free the engine a second time
	C.mlb_free(ptr)
}

// Classify judges a name in text form (any case, final dot or not, Unicode or A-labels). client is the address that
// asked, or the zero Addr; qtype is the type asked for. ErrName for what is not a domain name.
func (e *Engine) Classify(name string, client netip.Addr, qtype uint16) (Verdict, error) {
	lock := e.enter()
	if lock == nil {
		return Verdict{}, ErrClosed
	}
	defer lock.RUnlock()
	var addr [16]byte
	size := clientBytes(client, &addr)
	var v Verdict
	status := C.mlb_classify(e.ptr, textOf(name), C.size_t(len(name)),
		(*C.uint8_t)(&addr[0]), size, C.uint16_t(qtype), (*C.mlb_verdict)(unsafe.Pointer(&v)))
	if status != C.MLB_OK {
		return Verdict{}, Status(status)
	}
	return v, nil
}

// ClassifyWire is Classify for a name in uncompressed wire form, as it stands in a DNS message.
func (e *Engine) ClassifyWire(qname []byte, client netip.Addr, qtype uint16) (Verdict, error) {
	lock := e.enter()
	if lock == nil {
		return Verdict{}, ErrClosed
	}
	defer lock.RUnlock()
	if qname == nil {
		qname = []byte{} // NULL is an impossible argument, not a bad name
	}
	var addr [16]byte
	size := clientBytes(client, &addr)
	var v Verdict
	status := C.mlb_classify_wire(e.ptr, (*C.uint8_t)(unsafe.SliceData(qname)), C.size_t(len(qname)),
		(*C.uint8_t)(&addr[0]), size, C.uint16_t(qtype), (*C.mlb_verdict)(unsafe.Pointer(&v)))
	if status != C.MLB_OK {
		return Verdict{}, Status(status)
	}
	return v, nil
}

// ScoreBatch returns the model's score of each name, NaN where one is not a domain name. No list, override or threshold
// plays a part, and nothing is recorded.
func (e *Engine) ScoreBatch(names []string) ([]float32, error) {
	lock := e.enter()
	if lock == nil {
		return nil, ErrClosed
	}
	defer lock.RUnlock()
	if len(names) == 0 {
		return nil, nil
	}
	// C may not be given Go memory that holds Go pointers: the names are copied into one piece of C memory, pointers
	// first, then lengths, then bytes.
	total := 1
	for _, name := range names {
		total += len(name)
	}
	const word = unsafe.Sizeof(uintptr(0))
	memory := C.malloc(C.size_t(2*word*uintptr(len(names)) + uintptr(total)))
	defer C.free(memory)
	pointers := unsafe.Slice((**C.char)(memory), len(names))
	lengths := unsafe.Slice((*C.size_t)(unsafe.Add(memory, word*uintptr(len(names)))), len(names))
	bytes := unsafe.Slice((*byte)(unsafe.Add(memory, 2*word*uintptr(len(names)))), total)
	for i, name := range names {
		pointers[i] = (*C.char)(unsafe.Pointer(&bytes[0]))
		lengths[i] = C.size_t(copy(bytes, name))
		bytes = bytes[len(name):]
	}
	scores := make([]float32, len(names))
	status := C.mlb_score_batch(e.ptr, &pointers[0], &lengths[0], C.size_t(len(names)), (*C.float)(&scores[0]))
	if status != C.MLB_OK {
		return nil, Status(status)
	}
	return scores, nil
}

// Explain returns, as JSON, the parts of a name's verdict and what the model saw in it.
func (e *Engine) Explain(name string) (json.RawMessage, error) {
	text, err := e.text(func(buf *C.char, size C.size_t, need *C.size_t) Status {
		return Status(C.mlb_explain(e.ptr, textOf(name), C.size_t(len(name)), buf, size, need))
	})
	if err != nil {
		return nil, err
	}
	return json.RawMessage(text), nil
}

// Metrics returns the engine's counters in the Prometheus text format.
func (e *Engine) Metrics() (string, error) {
	return e.text(func(buf *C.char, size C.size_t, need *C.size_t) Status {
		return Status(C.mlb_metrics(e.ptr, buf, size, need))
	})
}

// Stats returns the engine's counters. Those that an older library does not have are 0.
func (e *Engine) Stats() (Stats, error) {
	lock := e.enter()
	if lock == nil {
		return Stats{}, ErrClosed
	}
	defer lock.RUnlock()
	var stats Stats
	status := C.mlb_stats_get(e.ptr, (*C.mlb_stats)(unsafe.Pointer(&stats)), C.size_t(unsafe.Sizeof(stats)))
	if status != C.MLB_OK {
		return Stats{}, Status(status)
	}
	return stats, nil
}

// Flush waits until what was recorded so far is durable in the store, at most for the timeout (rounded up to
// milliseconds): ErrTimeout if it is not. ErrBusy if another process holds the state directory.
func (e *Engine) Flush(timeout time.Duration) error {
	lock := e.enter()
	if lock == nil {
		return ErrClosed
	}
	defer lock.RUnlock()
	ms := max(timeout/time.Millisecond, 0)
	if timeout > ms*time.Millisecond {
		ms++
	}
	ms = min(ms, math.MaxUint32)
	if status := C.mlb_flush(e.ptr, C.uint32_t(ms)); status != C.MLB_OK {
		return Status(status)
	}
	return nil
}

// Reload puts new settings in force at once for everybody who holds the engine; the old ones stay on error. The settings
// "instance" and "state_dir" cannot change.
func (e *Engine) Reload(config Config) error {
	lock := e.enter()
	if lock == nil {
		return ErrClosed
	}
	defer lock.RUnlock()
	cfg, err := newConfig(config)
	if err != nil {
		return err
	}
	defer C.mlb_config_free(cfg)

	var text [errSize]C.char
	if status := C.mlb_reload(e.ptr, cfg, &text[0], errSize); status != C.MLB_OK {
		return explained(Status(status), "", &text)
	}
	return nil
}

// SinkError returns the last failure of the delivery to Elasticsearch or of the store, empty if there is none.
func (e *Engine) SinkError() (string, error) {
	lock := e.enter()
	if lock == nil {
		return "", ErrClosed
	}
	defer lock.RUnlock()
	var text [1024]C.char
	if status := C.mlb_sink_error(e.ptr, &text[0], C.size_t(len(text))); status != C.MLB_OK {
		return "", Status(status)
	}
	return C.GoString(&text[0]), nil
}

// Message takes the next unread message for the caller's log, with its syslog level (0 emergency to 7 debug). The text is
// empty if there is none. A verdict's FlagMessage says that one waits, so nobody has to poll.
func (e *Engine) Message() (text string, level int, err error) {
	lock := e.enter()
	if lock == nil {
		return "", 0, ErrClosed
	}
	defer lock.RUnlock()
	var buf [1024]C.char
	var syslog C.int
	if status := C.mlb_message(e.ptr, &buf[0], C.size_t(len(buf)), &syslog); status != C.MLB_OK {
		return "", 0, Status(status)
	}
	return C.GoString(&buf[0]), int(syslog), nil
}

// enter begins a call: the engine stays open until the lock it returns is unlocked with RUnlock. It returns nil if the
// engine is closed or being closed.
func (e *Engine) enter() *sync.RWMutex {
	lock := e.guard.enter()
	if lock != nil && e.ptr == nil {
		lock.RUnlock()
		return nil
	}
	return lock
}

// text calls a function that fills a buffer, with a larger one while it says that it needs one.
func (e *Engine) text(fill func(buf *C.char, size C.size_t, need *C.size_t) Status) (string, error) {
	lock := e.enter()
	if lock == nil {
		return "", ErrClosed
	}
	defer lock.RUnlock()
	buf := make([]byte, 4096)
	for {
		var need C.size_t
		start := (*C.char)(unsafe.Pointer(&buf[0]))
		status := fill(start, C.size_t(len(buf)), &need)
		if status == statusOK {
			return C.GoString(start), nil
		}
		if status != ErrRange || need <= C.size_t(len(buf)) {
			return "", status
		}
		buf = make([]byte, need)
	}
}

// newEngine owns ptr. The cleanup is a net for engines that were never closed, not the way to close one.
func newEngine(ptr *C.mlb_engine) *Engine {
	e := &Engine{ptr: ptr}
	e.cleanup = runtime.AddCleanup(e, func(lost *C.mlb_engine) { C.mlb_free(lost) }, ptr)
	return e
}

// newConfig makes the library's settings; the caller frees them.
func newConfig(config Config) (*C.mlb_config, error) {
	var cfg *C.mlb_config
	if status := C.mlb_config_new(&cfg); status != C.MLB_OK {
		return nil, Status(status)
	}
	if err := fillConfig(cfg, config); err != nil {
		C.mlb_config_free(cfg)
		return nil, err
	}
	return cfg, nil
}

// fillConfig applies the defaults, the file and the single settings.
func fillConfig(cfg *C.mlb_config, config Config) error {
	if err := fillSettings(cfg, config.Defaults); err != nil {
		return err
	}
	if config.File != "" {
		if strings.ContainsRune(config.File, 0) {
			return &Error{Status: ErrConfig, Text: fmt.Sprintf("%q is not a path", config.File)}
		}
		path := C.CString(config.File)
		defer C.free(unsafe.Pointer(path))
		var text [errSize]C.char
		if status := C.mlb_config_load(cfg, path, &text[0], errSize); status != C.MLB_OK {
			return explained(Status(status), "", &text)
		}
	}
	return fillSettings(cfg, config.Settings)
}

// fillSettings applies single settings, in the order of their keys so that errors do not vary.
func fillSettings(cfg *C.mlb_config, settings map[string]string) error {
	var text [errSize]C.char
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		// C's text ends at a NUL byte: what stands behind one would be lost.
		if strings.ContainsRune(key+settings[key], 0) {
			return &Error{Status: ErrConfig, Key: key, Text: fmt.Sprintf("%q: key or value has a NUL byte", key)}
		}
		k, v := C.CString(key), C.CString(settings[key])
		status := C.mlb_config_set(cfg, k, v, &text[0], errSize)
		C.free(unsafe.Pointer(k))
		C.free(unsafe.Pointer(v))
		if status != C.MLB_OK {
			return explained(Status(status), key, &text)
		}
	}
	return nil
}

// explained makes an error of a status and the library's words.
func explained(status Status, key string, text *[errSize]C.char) error {
	return &Error{Status: status, Key: key, Text: C.GoString(&text[0])}
}

// checkABI refuses a library whose calls mean something else than this package's header says.
func checkABI() error {
	if have := uint32(C.mlb_abi_version()); have != C.MLB_ABI_VERSION {
		return fmt.Errorf("%w: library %s has ABI %d, this program was built for %d", ErrABI, Version(), have, C.MLB_ABI_VERSION)
	}
	return nil
}

// textOf is where a string's bytes are. An empty one may have none, and NULL is an impossible argument, not a bad name.
func textOf(name string) *C.char {
	if name == "" {
		name = "\x00"
	}
	return (*C.char)(unsafe.Pointer(unsafe.StringData(name)))
}

// clientBytes writes an address in network order and returns how many bytes of it count.
func clientBytes(client netip.Addr, buf *[16]byte) C.size_t {
	switch {
	case client.Is4():
		a := client.As4()
		copy(buf[:], a[:])
		return 4
	case client.Is6():
		*buf = client.As16()
		return 16
	default:
		return 0
	}
}
