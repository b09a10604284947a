//go:build cgo && mlbridge_static

package mlbridge

// libmlbridge.a goes into the program, which then needs no libmlbridge.so. A program can hold only one Rust static
// library. The system's libraries stay shared: the list is mlbridge.pc's Libs.private. The assembler kernels of the model's
// run time do not say that they need no executable stack, so the linker is told.

// #cgo LDFLAGS: -l:libmlbridge.a -Wl,-z,noexecstack -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc
import "C"
