"""Threads: calls at once, calls that race with close and reload."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import mlbridge
from mlbridge import Engine

OpenEngine = Callable[..., Engine]


def _together(*functions: Callable[[], None]) -> list[BaseException]:
    """Runs functions in threads of their own and gives what they raised."""
    raised: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,), daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    return raised


def test_all_threads_get_the_same_score(engine: OpenEngine) -> None:
    opened = engine()
    names = [f"host{number}.example.com" for number in range(200)]
    expected = [opened.classify(name).score for name in names]

    def ask() -> None:
        for _ in range(5):
            assert [opened.classify(name).score for name in names] == expected

    assert _together(*[ask] * 8) == []
    assert opened.stats()["classified"] == 200 + 8 * 5 * 200


def test_close_races_with_calls_in_other_threads(library: Path) -> None:
    for _ in range(30):
        opened = Engine(library=library)
        started = threading.Barrier(5)
        closed: list[int] = []

        def ask(
            opened: Engine = opened,
            started: threading.Barrier = started,
            closed: list[int] = closed,
        ) -> None:
            started.wait()
            number = 0
            try:
                while True:
                    number += 1
                    opened.classify(f"host{number}.example.com")
                    opened.score(["www.example.com", "a..b"])
                    opened.stats()
            except mlbridge.ClosedError:
                closed.append(number)

        def close(opened: Engine = opened, started: threading.Barrier = started) -> None:
            started.wait()
            time.sleep(0.005)
            opened.close()
            assert not opened._running

        assert _together(ask, ask, ask, ask, close) == []
        assert len(closed) == 4


def test_two_threads_may_close(library: Path) -> None:
    opened = Engine(library=library)
    assert _together(*[opened.close] * 4) == []
    assert opened.closed


def test_reload_races_with_calls(engine: OpenEngine, tmp_path: Path) -> None:
    block = tmp_path / "block.txt"
    block.write_text("bad.example\n")
    opened = engine(lists_block=[block], block_ttl=1)
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            verdict = opened.classify("bad.example")
            assert verdict.decision is mlbridge.Decision.BLOCK
            assert verdict.ttl in range(1, 32)

    def reload() -> None:
        for ttl in range(1, 31):
            opened.reload(lists_block=[block], block_ttl=ttl)
        with pytest.raises(mlbridge.ConfigError):
            opened.reload(block_action="sinkhole")
        done.set()

    assert _together(ask, ask, ask, reload) == []
    assert opened.classify("bad.example").ttl == 30
