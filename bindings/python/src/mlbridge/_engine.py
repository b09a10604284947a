"""The engine: a loaded model with its policy and its store, asked about names.

An `Engine` may be used by any number of threads at once; the interpreter's lock is released during each call into the
library. `close` waits for the calls that other threads still have running, and calls that come later raise
`ClosedError`. No call into the library is made with a lock held.

After `os.fork` the child's engines go on answering, but record nothing once the parent has recorded something (the
library counts what it leaves out); a child that wants to record opens an engine of its own. They are not reopened by
themselves: opening takes locks that another thread of the parent may have held when it forked.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import TracebackType
from typing import Any, NoReturn, Union

from ._errors import ClosedError, InvalidError
from ._library import Library, load
from ._settings import Setting, flatten, keyword_key, text_of
from ._verdict import Action, Decision, Flag, Label, Message, Source, Verdict

__all__ = ["Client", "Engine"]

Client = Union[None, str, bytes, ipaddress.IPv4Address, ipaddress.IPv6Address]
"""A client's address: text, 4 or 16 bytes in network order, an `ipaddress` object, or `None` if there is none."""

_Path = Union[str, "os.PathLike[str]"]

_MLB_E_RANGE = 7
_TEXT_BYTES = 4096
_SCORES_A_CALL = 4096
_LABELS = tuple(Label)
_DECISIONS = tuple(Decision)
_ACTIONS = tuple(Action)
_SOURCES = tuple(Source)
_NO_ADDRESS4 = bytes(4)
_NO_ADDRESS6 = bytes(16)


class Engine:
    """A loaded model, its policy and its store.

    >>> with Engine(block_ttl=30) as engine:
    ...     engine.classify("www.example.com").decision.name
    'ALLOW'
    """

    _library: Library
    _handle: int | None

    def __init__(
        self,
        settings: Mapping[str, Setting] | None = None,
        /,
        *,
        config: _Path | None = None,
        library: _Path | None = None,
        **keywords: Setting,
    ) -> None:
        """Opens an engine from a TOML file, then `settings`, then keywords; the last value of a key counts.

        `settings` has dotted keys, or tables: `{"block.action": "nxdomain"}`, `{"block": {"action": "nxdomain"}}`.
        Keywords have the first underscore for the dot: `block_action="nxdomain"`. Without any, the engine has the
        embedded model and writes nothing. `library` is the path of `libmlbridge.so`, for those who do not use the
        one of the package or of the system.

        Raises `ConfigError`, `StoreError`, `ModelError` or `LibraryError`; the text names the setting or the file.
        """
        self._handle = None
        loaded = load(library)
        with _config(loaded, settings, config, keywords) as prepared:
            handle = ctypes.c_void_p()
            loaded.check_with_text(loaded.c.mlb_init, prepared, ctypes.byref(handle))
        self._adopt(loaded, handle.value)

    @classmethod
    def attach(cls, instance: str, *, library: _Path | None = None) -> Engine:
        """Another reference to the newest engine that this process opened under the setting `instance`.

        An engine of an instance stays at rest after its last close, so a program whose new settings fail goes on with
        the last good ones. Raises `InvalidError` if there never was one.
        """
        loaded = load(library)
        handle = ctypes.c_void_p()
        status = loaded.c.mlb_attach(_c_text("instance", instance), ctypes.byref(handle))
        loaded.check(status, f"instance: {instance!r} has no engine in this process" if status == 1 else "")
        engine = cls.__new__(cls)
        engine._adopt(loaded, handle.value)
        return engine

    def _adopt(self, library: Library, handle: int | None) -> None:
        self._library = library
        self._renew_guard()
        self._handle = handle
        _open_engines.add(self)

    def _renew_guard(self) -> None:
        """The guard of `close`: who is inside (appends and pops are atomic), and a bell for the last one out."""
        self._running: deque[None] = deque()
        self._left = threading.Event()
        self._closing = threading.Lock()

    def _enter(self) -> int:
        """Comes before each call into the library; `_leave` must follow, also after `ClosedError`."""
        self._running.append(None)
        handle = self._handle
        if handle is None:
            raise ClosedError("the engine is closed")
        return handle

    def _leave(self) -> None:
        self._running.pop()
        if self._handle is None:
            self._left.set()

    @contextmanager
    def _inside(self) -> Iterator[int]:
        try:
            yield self._enter()
        finally:
            self._leave()

    def classify(self, name: str | bytes, client: Client = None, qtype: int = 1) -> Verdict:
        """The verdict on a name in text form, with or without a final dot; it is recorded as the settings say.

        Unicode names are converted to A-labels; `bytes` are taken as they are. `qtype` is only recorded. Raises
        `NameFormError` for what is no domain name and `InvalidError` for what is no client address or question type.
        """
        raw = _name_bytes(name)
        address = _client_bytes(client)
        verdict = self._library.verdict_type()
        try:
            status = self._library.c.mlb_classify(
                self._enter(),
                raw,
                len(raw),
                address,
                len(address),
                _question_type(qtype),
                ctypes.byref(verdict),
            )
        finally:
            self._leave()
        if status:
            self._library.check(status, _about(status, name, client))
        return _verdict(verdict)

    def classify_wire(self, qname: bytes, client: Client = None, qtype: int = 1) -> Verdict:
        """As `classify`, for a name in uncompressed wire form, as DNS servers have it at hand."""
        address = _client_bytes(client)
        verdict = self._library.verdict_type()
        try:
            status = self._library.c.mlb_classify_wire(
                self._enter(),
                qname,
                len(qname),
                address,
                len(address),
                _question_type(qtype),
                ctypes.byref(verdict),
            )
        finally:
            self._leave()
        if status:
            self._library.check(status, _about(status, qname, client))
        return _verdict(verdict)

    def score(self, names: Iterable[str | bytes]) -> array[float]:
        """The model's numbers for many names, in their order, as an `array('f')`: no policy, nothing recorded.

        NaN stands where a name is none. Names that `classify` skips get a number too.
        """
        if isinstance(names, (str, bytes)):
            # It would be taken for a list of its letters.
            raise TypeError("names: one name; give a list of names")
        scores: array[float] = array("f")
        batch: list[bytes] = []
        for name in names:
            batch.append(_name_bytes(name))
            if len(batch) == _SCORES_A_CALL:
                scores.extend(self._score_batch(batch))
                batch.clear()
        if batch:
            scores.extend(self._score_batch(batch))
        return scores

    def _score_batch(self, names: list[bytes]) -> array[float]:
        count = len(names)
        pointers = (ctypes.c_char_p * count)(*names)
        lengths = (ctypes.c_size_t * count)(*map(len, names))
        scores = (ctypes.c_float * count)()
        with self._inside() as handle:
            status = self._library.c.mlb_score_batch(handle, pointers, lengths, count, scores)
        self._library.check(status)
        return array("f", bytes(scores))

    def explain(self, name: str | bytes) -> dict[str, Any]:
        """Why a name gets its verdict, as a dictionary; its contents grow with the library. Nothing is recorded."""
        raw = _name_bytes(name)
        explained = self._text(
            lambda handle, *buffer: self._library.c.mlb_explain(handle, raw, len(raw), *buffer),
            name,
        )
        parsed: dict[str, Any] = json.loads(explained)
        return parsed

    def stats(self) -> dict[str, int]:
        """The library's counters, by the names that the header gives them."""
        stats = self._library.stats_type()
        with self._inside() as handle:
            status = self._library.c.mlb_stats_get(handle, ctypes.byref(stats), ctypes.sizeof(stats))
        self._library.check(status)
        return {field[0]: getattr(stats, field[0]) for field in stats._fields_}

    def metrics(self) -> str:
        """The counters in Prometheus' text format."""
        return self._text(self._library.c.mlb_metrics)

    def flush(self, timeout: float = 5.0) -> None:
        """Waits until everything recorded so far is durable, at most `timeout` seconds.

        Raises `FlushTimeoutError` if that was too short, and `BusyError` while another process holds the store.
        """
        milliseconds = min(max(0, round(timeout * 1000)), 0xFFFF_FFFF)
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        with self._inside() as handle:
            status = self._library.c.mlb_flush(handle, milliseconds)
            if status:
                self._library.check(self._library.c.mlb_sink_error(handle, text, _TEXT_BYTES))
        self._library.check(status, text.value.decode("utf-8", "replace"))

    def reload(
        self,
        settings: Mapping[str, Setting] | None = None,
        /,
        *,
        config: _Path | None = None,
        **keywords: Setting,
    ) -> None:
        """Puts other settings in force at once, for all threads; they are given in full, as to `Engine`.

        If they are refused the old ones stay and the exception says why. `instance` and `state_dir` cannot change.
        """
        with (
            _config(self._library, settings, config, keywords) as prepared,
            self._inside() as handle,
        ):
            self._library.check_with_text(self._library.c.mlb_reload, handle, prepared)

    def message(self) -> Message | None:
        """The library's next unread message, or `None`. A verdict with `Flag.MESSAGE` says that one waits."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        level = ctypes.c_int()
        with self._inside() as handle:
            status = self._library.c.mlb_message(handle, text, _TEXT_BYTES, ctypes.byref(level))
        self._library.check(status)
        return Message(level.value, text.value.decode("utf-8", "replace")) if text.value else None

    def sink_error(self) -> str:
        """The last failure to store or to deliver, in words; empty if there was none."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        with self._inside() as handle:
            status = self._library.c.mlb_sink_error(handle, text, _TEXT_BYTES)
        self._library.check(status)
        return text.value.decode("utf-8", "replace")

    def close(self) -> None:
        """Gives the engine back; a second time does nothing.

        Waits for calls that other threads have running, then at most `close_timeout_ms` for what is still to be
        stored. Not to be called from a signal handler that may have interrupted a call on the same engine.
        """
        with self._closing:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            try:
                self._wait_until_nobody_is_inside()
            except BaseException:
                self._handle = handle
                raise
        self._library.c.mlb_free(handle)

    def _wait_until_nobody_is_inside(self) -> None:
        while True:
            self._left.clear()
            if not self._running:
                return
            self._left.wait()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._handle is None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # An engine nobody refers to has no call running; one whose __init__ failed has no handle.
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # A copy would have the same handle, and give it back a second time.
        raise TypeError("an engine can be neither copied nor pickled; open one in each process, or use Engine.attach")

    def __repr__(self) -> str:
        return f"<mlbridge.Engine {'closed' if self.closed else 'open'}>"

    def _text(self, function: Any, name: str | bytes | None = None) -> str:
        """Calls a function that ends in `(char *buf, size_t buf_len, size_t *need)`, with a buffer that fits."""
        size = _TEXT_BYTES
        need = ctypes.c_size_t()
        while True:
            text = ctypes.create_string_buffer(size)
            with self._inside() as handle:
                status = function(handle, text, size, ctypes.byref(need))
            if status != _MLB_E_RANGE or need.value <= size:
                break
            size = need.value
        self._library.check(status, _about(status, name, None))
        return text.value.decode("utf-8", "replace")


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _renew_guards_after_fork() -> None:
    """Threads of the parent do not exist in the child: their calls never end, and their locks stay held."""
    for engine in _open_engines:
        engine._renew_guard()


os.register_at_fork(after_in_child=_renew_guards_after_fork)


@contextmanager
def _config(
    library: Library,
    settings: Mapping[str, Setting] | None,
    path: _Path | None,
    keywords: Mapping[str, Setting],
) -> Iterator[ctypes.c_void_p]:
    """A filled `mlb_config`, freed at the end."""
    texts = dict(flatten(settings or {}))
    texts.update((key, text_of(key, value)) for key, value in ((keyword_key(k), v) for k, v in keywords.items()))
    config = ctypes.c_void_p()
    library.check(library.c.mlb_config_new(ctypes.byref(config)))
    try:
        if path is not None:
            library.check_with_text(library.c.mlb_config_load, config, os.fsencode(path))
        for key, text in texts.items():
            library.check_with_text(library.c.mlb_config_set, config, _c_text("key", key), _c_text(key, text))
        yield config
    finally:
        library.c.mlb_config_free(config)


def _c_text(what: str, text: str) -> bytes:
    if "\0" in text:
        raise ValueError(f"{what}: {text!r} has a zero byte")
    return text.encode("utf-8", "surrogateescape")


def _name_bytes(name: str | bytes) -> bytes:
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


def _client_bytes(client: Client) -> bytes:
    if client is None:
        return b""
    if isinstance(client, bytes):
        return client
    if isinstance(client, str):
        try:
            return ipaddress.ip_address(client).packed
        except ValueError:
            raise InvalidError(f"not a client address: {client!r}", 1) from None
    if isinstance(client, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return client.packed
    raise TypeError(f"not a client address: {client!r}")


def _question_type(number: int) -> int:
    # ctypes would cut it to 16 bits without a word.
    if 0 <= number <= 0xFFFF:
        return number
    raise InvalidError(f"not a question type: {number!r}", 1)


def _about(status: int, name: str | bytes | None, client: Client) -> str:
    if status == 2:
        return f"not a domain name: {name!r}"
    if status == 1 and client is not None:
        return f"not a client address: {client!r}"
    return ""


def _verdict(raw: Any) -> Verdict:
    sinkhole4 = bytes(raw.sinkhole4)
    sinkhole6 = bytes(raw.sinkhole6)
    return Verdict(
        raw.score,
        _LABELS[raw.label],
        _DECISIONS[raw.decision],
        _ACTIONS[raw.action],
        _SOURCES[raw.source],
        _flags(raw.flags),
        raw.ttl,
        None if sinkhole4 == _NO_ADDRESS4 else ipaddress.IPv4Address(sinkhole4),
        None if sinkhole6 == _NO_ADDRESS6 else ipaddress.IPv6Address(sinkhole6),
        raw.fpr,
        raw.model,
    )


@lru_cache(maxsize=256)
def _flags(bits: int) -> Flag:
    return Flag(bits)
