#!/usr/bin/env python3
"""Measures what a call costs from Python: `bench.py [--library target/release/libmlbridge.so]`."""

from __future__ import annotations

import argparse
import sys
import timeit
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "src"))

import mlbridge  # noqa: E402  (the path is set above)

CALLS = 50_000
ROUNDS = 5


def microseconds(function: object, calls: int) -> float:
    """The best of some rounds: what the call costs when nothing else runs."""
    return min(timeit.repeat(function, number=calls, repeat=ROUNDS)) / calls * 1e6  # type: ignore[arg-type]


def main() -> None:
    """Prints one line a call."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--library", type=Path, default=HERE.parent.parent / "target/release/libmlbridge.so")
    chosen = arguments.parse_args()
    with mlbridge.Engine(library=chosen.library, record_allow="none") as engine:
        wire, client = b"\3www\7example\3com\0", b"\xc0\0\2\7"
        names = [f"host{number}.example.com" for number in range(10_000)]
        print(f"Python {sys.version.split()[0]}, {engine.stats()['classified']} calls before")
        print(f"classify, cached name       {microseconds(lambda: engine.classify('www.example.com'), CALLS):8.2f} us")
        print(f"classify with client text   {microseconds(lambda: engine.classify('www.example.com', '192.0.2.7'), CALLS):8.2f} us")
        print(f"classify_wire, cached name  {microseconds(lambda: engine.classify_wire(wire, client), CALLS):8.2f} us")
        print(f"score, a name               {microseconds(lambda: engine.score(names), 1) / len(names):8.2f} us")


if __name__ == "__main__":
    main()
