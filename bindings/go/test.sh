#!/bin/sh
# Tests the Go binding against the library in target/release: plain, with the race detector and Go's strictest checks of
# what is handed to C, linked through pkg-config, and linked statically.
set -eu
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
. ./env.sh
need_go "Go binding"
need_library
"$ROOT/tests/prerequisites" pkg-config:pkg-config cc:gcc readelf:binutils

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check_format
go vet ./...
echo "go: tests"
go test -count=1 -timeout 5m .
echo "go: tests with -race and cgocheck2"
GOEXPERIMENT=cgocheck2 go test -race -count=1 -timeout 5m .

# The template that make install fills in, filled in for this checkout.
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
sed -e "s|@PREFIX@|$ROOT|; s|@LIBDIR@|$LIB|; s|@INCLUDEDIR@|$ROOT/include|; s|@VERSION@|$version|" \
    "$ROOT/mlbridge.pc.in" >"$work/mlbridge.pc"
export PKG_CONFIG_PATH="$work"

echo "go: linked through pkg-config"
CGO_LDFLAGS="-Wl,-rpath,$LIB" go test -count=1 -tags mlbridge_pkgconfig -run 'Verdicts|Example' .

echo "go: linked statically"
go test -c -o "$work/static.test" -tags mlbridge_static .
check_static "$work/static.test"
"$work/static.test" -test.run 'Verdicts|Example|Close'

echo "c: linked statically by mlbridge.pc's Libs.private"
private=$(sed -n 's/^Libs.private: //p' "$work/mlbridge.pc")
# shellcheck disable=SC2086,SC2046
cc $(pkg-config --cflags mlbridge) testdata/scores.c "$LIB/libmlbridge.a" $private -o "$work/scores"
check_static "$work/scores"
"$work/scores" "$ROOT/models/seed2020" example.org >/dev/null
