# Sourced by the scripts of the Go parts, after they have set ROOT: checks for Go and the library, and sets what a build
# needs. MLBRIDGE_LIB_DIR names another folder with the library than ROOT/target/release.

# The first line of go.mod that counts: "go 1.26.0".
GO_WANTED=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$ROOT/bindings/go/go.mod")

# Ends the script if there is no Go new enough: with success and a printed reason on somebody's machine, with failure
# where CI is set, so that a missing test is seen.
need_go() {
    have=$(go env GOVERSION 2>/dev/null | sed -n 's/^go\([0-9]*\.[0-9]*\).*/\1/p')
    if [ -n "$have" ] && [ "$(printf '%s\n' "$GO_WANTED" "$have" | sort -V | head -n 1)" = "$GO_WANTED" ]; then
        return
    fi
    reason="$1: needs Go $GO_WANTED or newer, found ${have:-none}; get it from https://go.dev/dl (Debian 12's is too old)"
    if [ -n "${CI:-}" ]; then
        echo "FAILED $reason" >&2
        exit 1
    fi
    echo "SKIPPED $reason" >&2
    exit "${2:-0}"
}

# Sets CGO_LDFLAGS to link against the library that cargo has built.
need_library() {
    LIB=${MLBRIDGE_LIB_DIR:-$ROOT/target/release}
    if [ ! -e "$LIB/libmlbridge.so" ]; then
        echo "FAILED: no $LIB/libmlbridge.so; run cargo build --release first" >&2
        exit 1
    fi
    # The name that the loader looks for; make install makes the same link.
    [ -e "$LIB/libmlbridge.so.0" ] || ln -s libmlbridge.so "$LIB/libmlbridge.so.0"
    export CGO_ENABLED=1
    export CGO_LDFLAGS="-L$LIB -Wl,-rpath,$LIB"
}

# Go's formatter changes nothing.
check_format() {
    unformatted=$(gofmt -l .)
    if [ -n "$unformatted" ]; then
        echo "FAILED: run gofmt -w on: $unformatted" >&2
        exit 1
    fi
}

# A program with the static library needs no shared one, and no executable stack.
check_static() {
    if ldd "$1" | grep libmlbridge; then
        echo "FAILED: $1 was linked statically and needs libmlbridge.so" >&2
        exit 1
    fi
    if readelf -lW "$1" | grep 'GNU_STACK.* RWE '; then
        echo "FAILED: $1 has an executable stack" >&2
        exit 1
    fi
}
