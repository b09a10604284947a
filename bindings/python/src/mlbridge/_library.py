"""Finds, loads and checks `libmlbridge.so`, and types its functions from the `.cdef` that the package carries.

A library is looked for, in this order: at the path given; inside the package (a wheel carries it); by the system's
loader as `libmlbridge.so.0`. No environment variable of this package's own is read. Once loaded, a library stays
loaded until the process ends.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

from ._cdef import Declarations, parse
from ._errors import LibraryError, error_for

__all__ = ["ABI_VERSION", "Library", "load"]

ABI_VERSION = 1
"""The version of the C ABI that this package speaks; a library of another version is refused."""

SONAME = "libmlbridge.so.0"

_ERROR_BYTES = 1024
_HERE = Path(__file__).resolve().parent
_loaded: dict[str, Library] = {}
_loading = threading.Lock()


class Library:
    """The loaded library: typed functions as attributes of `c`, layouts in `declared`. Safe in any thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.declared: Declarations = parse((_HERE / "mlbridge.cdef").read_text(encoding="utf-8"))
        try:
            self.c: Any = ctypes.CDLL(path)
        except OSError as error:
            raise LibraryError(f"{path}: {error}; give the path, Engine(library=...), or install libmlbridge") from None
        self._check_version()
        for name, prototype in self.declared.functions.items():
            function = self._function(name)
            function.restype = prototype.restype
            function.argtypes = prototype.argtypes
        self.verdict_type: Any = self.declared.structs["mlb_verdict"]
        self.stats_type: Any = self.declared.structs["mlb_stats"]

    def version(self) -> str:
        """The library's own version, for people and logs."""
        return _text(self.c.mlb_version())

    def check(self, status: int, detail: str = "") -> None:
        """Raises the exception for a status other than `MLB_OK`, with `detail` or the library's own words."""
        if status:
            raise error_for(status, detail or _text(self.c.mlb_strerror(status)))

    def check_with_text(self, function: Any, *arguments: Any) -> None:
        """Calls a function that ends in `(char *err, size_t err_len)` and raises what it reports."""
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        status = function(*arguments, error, _ERROR_BYTES)
        self.check(status, _text(error.value))

    def _check_version(self) -> None:
        function = self._function("mlb_abi_version")
        function.restype = ctypes.c_uint32
        function.argtypes = []
        found = function()
        if found != ABI_VERSION:
            raise LibraryError(
                f"{self.path}: ABI version {found}, this package speaks {ABI_VERSION}; install the two together"
            )

    def _function(self, name: str) -> Any:
        try:
            return getattr(self.c, name)
        except AttributeError:
            raise LibraryError(
                f"{self.path}: no function {name}; not libmlbridge, or older than this package"
            ) from None


def load(path: str | os.PathLike[str] | None = None) -> Library:
    """The library at `path`, or the one found by the search order of this module; loaded once per path.

    Raises `LibraryError` if there is none, or not a fitting one.
    """
    place = _default_path() if path is None else os.path.abspath(os.fspath(path))
    with _loading:
        if place not in _loaded:
            _loaded[place] = Library(place)
        return _loaded[place]


def _default_path() -> str:
    carried = _HERE / "libmlbridge.so"
    return str(carried) if carried.exists() else SONAME


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")
