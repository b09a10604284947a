"""fork: what an engine of the parent does in the child. A child that hangs is killed and fails its test."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mlbridge import Decision, Engine

CHILD_SECONDS = 30.0

OpenEngine = Callable[..., Engine]


def _in_child(function: Callable[[], None]) -> None:
    """Runs a function in a forked child and fails if it raised or did not end."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    deadline = time.monotonic() + CHILD_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"the child ended with {status:#x}"
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def test_a_child_answers_but_does_not_record_beside_its_parent(engine: OpenEngine, tmp_path: Path) -> None:
    opened = engine(state_dir=tmp_path / "state", record_allow="all", record_coalesce_s=0)
    opened.classify("www.example.com")
    opened.flush()
    expected = opened.classify("www.example.org").score

    def child() -> None:
        verdict = opened.classify("www.example.org")
        assert verdict.decision is Decision.ALLOW
        assert verdict.score == expected
        opened.close()

    _in_child(child)
    opened.classify("www.example.net")
    opened.flush()
    assert opened.stats()["stored"] == 3


def test_a_child_owns_an_engine_that_had_not_recorded(library: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    opened = Engine(library=library, state_dir=state, record_allow="all")

    def child() -> None:
        opened.classify("www.example.com")
        opened.flush()
        assert opened.stats()["stored"] == 1
        opened.close()

    _in_child(child)
    opened.close()


def test_a_child_can_open_an_engine_of_its_own(engine: OpenEngine, library: Path, tmp_path: Path) -> None:
    opened = engine(state_dir=tmp_path / "parent", record_allow="all")
    opened.classify("www.example.com")
    opened.flush()

    def child() -> None:
        with Engine(library=library, state_dir=tmp_path / "child", record_allow="all") as own:
            own.classify("www.example.com")
            own.flush()
            assert own.stats()["stored"] == 1

    _in_child(child)


def test_a_child_can_close_while_threads_of_its_parent_were_inside(engine: OpenEngine) -> None:
    opened = engine()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            opened.score(["www.example.com"] * 500)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            _in_child(opened.close)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not opened.closed
    assert opened.classify("www.example.com").decision is Decision.ALLOW
