//go:build cgo && mlbridge_pkgconfig && !mlbridge_static

package mlbridge

// The folders come from an installed mlbridge.pc (or one that PKG_CONFIG_PATH names).

// #cgo pkg-config: mlbridge
import "C"
