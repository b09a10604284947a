"""mlbridge: machine-learning verdicts on domain names, from Python.

The package is a thin layer of ctypes over `libmlbridge.so`; it needs no compiler. `Engine` is the whole of it:

>>> from mlbridge import Decision, Engine
>>> with Engine() as engine:
...     verdict = engine.classify("www.example.com", client="192.0.2.7")
>>> verdict.decision is Decision.ALLOW
True
"""

from ._engine import Client, Engine
from ._errors import (
    BusyError,
    ClosedError,
    ConfigError,
    Error,
    FlushTimeoutError,
    ForkedError,
    InvalidError,
    LibraryError,
    ModelError,
    NameFormError,
    PanicError,
    RangeError,
    StoreError,
)
from ._library import ABI_VERSION, Library, load
from ._settings import Setting
from ._verdict import Action, Decision, Flag, Label, Message, Source, Verdict

__version__ = "0.1.0"

__all__ = [
    "ABI_VERSION",
    "Action",
    "BusyError",
    "Client",
    "ClosedError",
    "ConfigError",
    "Decision",
    "Engine",
    "Error",
    "Flag",
    "FlushTimeoutError",
    "ForkedError",
    "InvalidError",
    "Label",
    "Library",
    "LibraryError",
    "Message",
    "ModelError",
    "NameFormError",
    "PanicError",
    "RangeError",
    "Setting",
    "Source",
    "StoreError",
    "Verdict",
    "load",
]
