"""The tests' fixtures. They run the package from the source tree on the library that Cargo built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "bindings/python/src"))

import mlbridge  # noqa: E402  (the path is set above)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--library`."""
    parser.addoption("--library", default=str(ROOT / "target/release/libmlbridge.so"))


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Path:
    """The path of the built library."""
    path = Path(request.config.getoption("--library"))
    assert path.exists(), f"{path}: not there; run cargo build --release"
    return path


OpenEngine = Callable[..., mlbridge.Engine]


@pytest.fixture
def engine(library: Path) -> Iterator[OpenEngine]:
    """Opens engines of that library: `engine({"block.ttl": 5}, mode="observe")`; they are closed at the end."""
    opened: list[mlbridge.Engine] = []

    def open_engine(*settings: Any, **keywords: Any) -> mlbridge.Engine:
        made = mlbridge.Engine(*settings, library=library, **keywords)
        opened.append(made)
        return made

    yield open_engine
    for made in opened:
        made.close()
