//go:build cgo && !mlbridge_static && !mlbridge_pkgconfig

package mlbridge

// The linker finds libmlbridge.so in its own folders or in those that CGO_LDFLAGS names (-L...).

// #cgo LDFLAGS: -lmlbridge
import "C"
