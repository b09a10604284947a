//go:build cgo && !mlbridge_static && !mlbridge_pkgconfig

package mlbridge

// The linker finds libmlbridge.so in its own folders or in those that CGO_LDFLAGS names (-L...).
// All functions are looked up at the start: an older library that lacks one must not end a server in the middle of its work.

// #cgo LDFLAGS: -lmlbridge -Wl,-z,now
import "C"
