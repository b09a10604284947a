//go:build cgo && mlbridge_pkgconfig && !mlbridge_static

package mlbridge

// The folders come from an installed mlbridge.pc (or one that PKG_CONFIG_PATH names).
// All functions are looked up at the start, as in link_shared.go.

// #cgo pkg-config: mlbridge
// #cgo LDFLAGS: -Wl,-z,now
import "C"
