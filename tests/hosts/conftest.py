"""The fixtures of the host tests: what was built, a folder that a server's own user can enter, the upstream server."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).resolve().parent))

from servers import ALL  # noqa: E402
from servers.base import Build, Server  # noqa: E402
from support.package import installed_package  # noqa: E402
from support.upstream import Upstream  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--target", default=str(ROOT / "target/release"), help="folder with libmlbridge.so and mlbridge")
    parser.addoption("--server", action="append", help="only this server; may be given more than once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_class" not in metafunc.fixturenames:
        return
    wanted = metafunc.config.getoption("--server")
    # A module about some servers only names them in SERVERS.
    served = getattr(metafunc.module, "SERVERS", ALL)
    chosen = [server for server in served if not wanted or server.name in wanted]
    metafunc.parametrize("server_class", chosen, ids=[server.name for server in chosen])


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that every user may enter (pytest's own ones are root's only)."""
    path = Path(tempfile.mkdtemp(prefix="mlbridge-hosts-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    """The built library, and the Python package installed from its wheel."""
    target = Path(request.config.getoption("--target"))
    path = Path(tempfile.mkdtemp(prefix="mlbridge-hosts-"))
    path.chmod(0o755)
    package = installed_package(target / "libmlbridge.so", path)
    sys.path.insert(0, str(package))
    yield Build(target / "libmlbridge.so", target / "mlbridge", package)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    path = Path(tempfile.mkdtemp(prefix="mlbridge-hosts-"))
    with Upstream(path / "nsd") as running:
        yield running
    shutil.rmtree(path)


StartServer = Callable[..., Server]


@pytest.fixture
def server(server_class: type[Server], build: Build, upstream: Upstream, folder: Path) -> Iterator[StartServer]:
    """Starts the server with some settings: `server({...}, real_user=True)`; it is stopped at the end."""
    started: list[Server] = []

    def start(settings: Mapping[str, Any], **options: Any) -> Server:
        made = server_class(build, folder, upstream.port, settings, **options)
        started.append(made)
        made.start()
        return made

    yield start
    for made in started:
        made.__exit__()
