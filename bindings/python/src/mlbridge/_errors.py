"""The exceptions of the package: one class per status of the C ABI, all under `Error`."""

from __future__ import annotations


__all__ = [
    "BusyError",
    "ClosedError",
    "ConfigError",
    "Error",
    "FlushTimeoutError",
    "ForkedError",
    "InvalidError",
    "LibraryError",
    "ModelError",
    "NameFormError",
    "PanicError",
    "RangeError",
    "StoreError",
]


class Error(Exception):
    """What the library reported; `status` is the C ABI's number (`MLB_E_*`), 0 where the package itself raises."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class InvalidError(Error, ValueError):
    """An impossible argument, for example a client address of five bytes (`MLB_E_INVALID`)."""


class NameFormError(Error, ValueError):
    """Not a domain name: an empty label, one of more than 63 bytes, or more than 255 in all (`MLB_E_NAME`)."""


class ConfigError(Error, ValueError):
    """A setting is unknown, malformed, out of bounds or contradicts another; the text names it (`MLB_E_CONFIG`)."""


class StoreError(Error, OSError):
    """A file, a directory or the store could not be used (`MLB_E_IO`)."""

    def __init__(self, message: str, status: int = 0) -> None:
        Error.__init__(self, message, status)


class ModelError(Error):
    """The model could not be loaded, or failed to score (`MLB_E_MODEL`)."""


class FlushTimeoutError(Error, TimeoutError):
    """The work was not done in the time allowed (`MLB_E_TIMEOUT`)."""

    def __init__(self, message: str, status: int = 0) -> None:
        Error.__init__(self, message, status)


class RangeError(Error):
    """A buffer was too small (`MLB_E_RANGE`); the package grows its buffers, so this is not expected."""


class ForkedError(Error):
    """This process is a fork of the one that owns the engine (`MLB_E_FORKED`)."""


class BusyError(Error):
    """Another process holds what is needed; the text names it (`MLB_E_BUSY`)."""


class PanicError(Error):
    """The library failed inside and caught it (`MLB_E_PANIC`): a defect worth a report."""


class ClosedError(Error):
    """The engine was closed before this call."""


class LibraryError(Error, ImportError):
    """`libmlbridge.so` was not found, is too old, or has another ABI version than this package."""

    def __init__(self, message: str) -> None:
        Error.__init__(self, message)


_BY_STATUS: dict[int, type[Error]] = {
    1: InvalidError,
    2: NameFormError,
    3: ConfigError,
    4: StoreError,
    5: ModelError,
    6: FlushTimeoutError,
    7: RangeError,
    8: ForkedError,
    9: BusyError,
    10: PanicError,
}


def error_for(status: int, message: str | None) -> Error:
    """The exception for a status; an unknown one (of a newer library) is a plain `Error`."""
    return _BY_STATUS.get(status, Error)(message or f"status {status}", status)
