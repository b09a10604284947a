"""What a DNS server under test must be able to do."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.process import Process, free_port, wait_until
from support.query import Answer, answers, ask
from support.store import Store


@dataclass(frozen=True)
class Build:
    """What was built before the tests: the library, the command line, and the installed Python package's folder."""

    library: Path
    command: Path
    python_package: Path

    def engine(self) -> Any:
        """An engine of that library in the test's own process."""
        import mlbridge

        return mlbridge.Engine(library=self.library)


class Server(ABC):
    """A server with the library inside, on a loopback port, in a folder of its own. Use it as a context manager."""

    name: str
    user: str
    """The system user it runs as in production."""
    drop_rcode: str | None = None
    """What it answers where it can not drop; None if it can."""
    clean_exit: int = 0
    """Its exit status after SIGTERM."""

    def __init__(
        self,
        build: Build,
        folder: Path,
        upstream_port: int,
        settings: Mapping[str, Any],
        *,
        real_user: bool = False,
        plain: bool = False,
    ) -> None:
        self.build = build
        self.folder = folder
        self.port = free_port()
        self.upstream_port = upstream_port
        self.real_user = real_user
        self.plain = plain
        """Without the library, to compare with."""
        self.state_dir = folder / "state"
        self.settings_file = folder / "mlbridge.toml"
        self.prepare(settings)
        self._process: Process | None = None

    def prepare(self, settings: Mapping[str, Any]) -> None:
        """Makes the folder as an administrator would; called once."""
        self.state_dir.mkdir(mode=0o700)
        if self.real_user:
            user = pwd.getpwnam(self.user)
            os.chown(self.state_dir, user.pw_uid, user.pw_gid)
        self.write_settings(settings)
        self.write_config()

    @abstractmethod
    def write_config(self) -> None:
        """Writes the server's own configuration, which names the settings file."""

    @abstractmethod
    def command(self) -> list[str]:
        """Runs the server in the foreground."""

    @abstractmethod
    def check_command(self) -> list[str]:
        """Checks the configuration."""

    def environment(self) -> dict[str, str]:
        return {}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replaces the settings file; `state_dir` is always this server's own."""
        write_toml(self.settings_file, {"state_dir": str(self.state_dir), **settings})

    def start(self) -> None:
        self._process = Process(self.command(), self.folder / f"{self.name}.log", self.environment())
        wait_until(self._ready, lambda: f"{self.name} does not answer:\n{self.log()}")

    def _ready(self) -> bool:
        assert self.process.running, f"{self.name} ended at its start:\n{self.log()}"
        return answers(self.port)

    def check(self) -> subprocess.CompletedProcess[str]:
        """Runs the server's configuration checker."""
        environment = {**os.environ, **self.environment()}
        return subprocess.run(self.check_command(), env=environment, capture_output=True, text=True, check=False)

    def reload(self) -> None:
        """Makes the running server read its settings again; the test waits for what it expects of that."""
        self.process.signal(signal.SIGHUP)

    @property
    def process(self) -> Process:
        assert self._process is not None, "not started"
        return self._process

    def stop(self) -> None:
        """A clean stop."""
        status = self.process.stop()
        assert status == self.clean_exit, f"exit status {status}:\n{self.log()}"

    def kill(self) -> None:
        self.process.kill()

    def log(self) -> str:
        path = self.folder / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def ask(self, name: str, kind: str = "A", **options: Any) -> Answer:
        return ask(self.port, name, kind, **options)

    def answering(self) -> bool:
        return answers(self.port)

    def queries_counted(self) -> int:
        """How many queries the store counts once it is idle: those of the start."""
        counted = -1

        def idle() -> bool:
            nonlocal counted
            before, counted = counted, self.store.count()
            time.sleep(0.3)
            return before == counted

        wait_until(idle, "the store is never idle")
        return counted

    def mlbridge(self, *arguments: str) -> str:
        """Runs the command line on this server's settings, once its store is there."""
        wait_until(self.store.is_made, lambda: f"{self.name} makes no store:\n{self.log()}")
        command = [str(self.build.command), "--config", str(self.settings_file), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def store(self) -> Store:
        return Store(self.state_dir)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self._process is not None and self._process.running:
            self.stop()


def write_toml(path: Path, settings: Mapping[str, Any]) -> None:
    """Writes dotted keys as TOML, in one step, so that a server never reads half a file."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    fresh = path.with_suffix(".new")
    fresh.write_text("\n".join(lines) + "\n")
    fresh.chmod(0o644)
    shutil.move(fresh, path)
