//go:build !cgo

package mlbridge

// Package mlbridge calls a C library. Without this file a build with CGO_ENABLED=0 would end in "build constraints
// exclude all Go files"; with it, in the name below.
var _ = mlbridge_needs_cgo_so_build_with_CGO_ENABLED_1_and_a_C_compiler
