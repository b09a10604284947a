"""Server processes of the tests: each with its own log file, ended by its own process id, never by name."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 20.0


class Process:
    """A program that runs in the foreground until it is stopped; its output goes to `log`."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def stop(self) -> int:
        """Ends the process with SIGTERM and gives its exit status; one that does not end is an error, and killed."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> int:
        """Ends the process with SIGKILL, as a crash or the kernel's memory killer would."""
        if self.running:
            self.signal(signal.SIGKILL)
        return self._wait()

    def _wait(self) -> int:
        try:
            return self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            raise AssertionError(f"process {self.pid} did not end:\n{self.output()}") from None

    def output(self) -> str:
        return self.log.read_text(errors="replace")


def wait_until(condition, what: str, seconds: float = START_SECONDS):
    """Polls until `condition()` is true and gives its value; fails with `what` (text or function) after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(what() if callable(what) else what)
        time.sleep(0.02)


def free_port() -> int:
    """A loopback port that is free for UDP and TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
