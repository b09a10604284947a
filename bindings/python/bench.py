#!/usr/bin/env python3
"""Measures what a call costs from Python: `bench.py [--library target/release/libmlbridge.so]`."""

from __future__ import annotations

import argparse
import sys
import timeit
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

import mlbridge  # noqa: E402  (the path is set above)

CALLS = 50_000
ROUNDS = 5


def microseconds(function: Callable[[], object], calls: int) -> float:
    """The best of some rounds: what the call costs when nothing else runs."""
    return min(timeit.repeat(function, number=calls, repeat=ROUNDS)) / calls * 1e6


def main() -> None:
    """Prints one line a call."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--library", type=Path, default=HERE.parent.parent / "target/release/libmlbridge.so")
    chosen = arguments.parse_args()
    with mlbridge.Engine(library=chosen.library, record_allow="none") as engine:
        wire, client = b"\3www\7example\3com\0", b"\xc0\0\2\7"
        names = [f"host{number}.example.com" for number in range(10_000)]
        print(f"Python {sys.version.split()[0]}, libmlbridge {mlbridge.load(chosen.library).version()}")
        costs = {
            "classify, cached name": microseconds(lambda: engine.classify("www.example.com"), CALLS),
            "the same with client text": microseconds(lambda: engine.classify("www.example.com", "192.0.2.7"), CALLS),
            "classify_wire, client bytes": microseconds(lambda: engine.classify_wire(wire, client), CALLS),
            "score, a name": microseconds(lambda: engine.score(names), 1) / len(names),
        }
    for call, cost in costs.items():
        print(f"{call:28} {cost:8.2f} us")


if __name__ == "__main__":
    main()
