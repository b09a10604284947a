"""What the library costs a server: CPU time of its process for each query, with the library and without.

`/usr/bin/python3 tests/hosts/bench.py [server...]`, after `tests/hosts/run` has installed what it needs. "hot" are
1,000 names from the server's cache, "miss" are names never asked before, resolved through the upstream server,
"blocked" are names on a block list. Rounds with and without the library take turns; the median of each is printed.
Queries a second are not: on a shared machine they say more about the neighbours.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import count
from pathlib import Path

from servers import ALL
from servers.base import Build, Server
from support.package import installed_package
from support.upstream import Upstream

TARGET = Path(__file__).resolve().parents[2] / "target/release"
ROUNDS = 5
QUERIES = 50_000
HOT_NAMES = 1_000
_fresh = count()


def main() -> None:
    """Prints a table for each server."""
    wanted = sys.argv[1:]
    folder = Path(tempfile.mkdtemp(prefix="mlbridge-bench-"))
    try:
        build = Build(
            TARGET / "libmlbridge.so", TARGET / "mlbridge", installed_package(TARGET / "libmlbridge.so", folder)
        )
        with Upstream(folder / "nsd") as upstream:
            for server in ALL:
                if not wanted or server.name in wanted:
                    _measure(server, build, upstream, folder)
    finally:
        shutil.rmtree(folder)


def _measure(kind: type[Server], build: Build, upstream: Upstream, folder: Path) -> None:
    costs: dict[tuple[str, str], list[float]] = {}
    for turn in range(ROUNDS):
        for variant in ("without", "with"):
            place = folder / f"{kind.name}-{turn}-{variant}"
            place.mkdir()
            listed = place / "block.txt"
            listed.write_text("||blocked.example^\n")
            settings = {"lists.block": [str(listed)], "breaker.max_block_ratio": 1}
            with kind(build, place, upstream.port, settings, plain=variant == "without") as server:
                for load, cost in _loads(server, place).items():
                    costs.setdefault((load, variant), []).append(cost)
    print(f"{kind.name}: microseconds of CPU for a query, median of {ROUNDS} rounds (lowest to highest)")
    for load in ("hot", "miss", "blocked"):
        print(
            f"  {load:8}" + "".join(f"  {variant} {_summary(costs[load, variant])}" for variant in ("without", "with"))
        )


def _summary(values: list[float]) -> str:
    return f"{statistics.median(values):6.1f} ({min(values):.1f} to {max(values):.1f})"


def _loads(server: Server, folder: Path) -> dict[str, float]:
    hot = folder / "hot.txt"
    hot.write_text("".join(f"hot{number}.example A\n" for number in range(HOT_NAMES)))
    _cost(server, hot, 1)
    costs = {"hot": _cost(server, hot, QUERIES // HOT_NAMES)}
    for load, zone in (("miss", "example"), ("blocked", "blocked.example")):
        names = folder / f"{load}.txt"
        names.write_text("".join(f"n{next(_fresh)}.{zone} A\n" for _ in range(QUERIES)))
        costs[load] = _cost(server, names, 1)
    return costs


def _cost(server: Server, names: Path, times: int) -> float:
    """Asks for each name so many times and gives the server's CPU microseconds a query."""
    before = _cpu_seconds(server.process.pid)
    command = f"dnsperf -s 127.0.0.1 -p {server.port} -d {names} -n {times} -c 8 -q 100".split()
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    completed = next(int(line.split()[2]) for line in report.splitlines() if "Queries completed" in line)
    return (_cpu_seconds(server.process.pid) - before) / completed * 1e6


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
