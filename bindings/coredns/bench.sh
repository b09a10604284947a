#!/bin/sh
# Measures CoreDNS with the plugin against CoreDNS without it, and against one HTTP POST a query to a local server that does
# nothing (what the suite of 2020 did, without its work). One program, several Corefiles; runs alternate, so that what else
# happens on the machine falls on all of them. Prints a table in Markdown.
#   bench.sh [PAIRS [SECONDS]]
set -eu
cd "$(dirname "$0")"
ROOT=$(cd ../.. && pwd)
. ../go/env.sh
need_go "CoreDNS benchmark" 1
need_library
"$ROOT/tests/prerequisites" dnsperf:dnsperf python3:python3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/coredns" ./bench
exec python3 bench/measure.py "$work" "${1:-8}" "${2:-3}"
