"""The words of an answer: label, decision, action, source, flags, and the verdict that holds them together."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

__all__ = ["Action", "Decision", "Flag", "Label", "Message", "Source", "Verdict"]


class Label(enum.IntEnum):
    """What the model holds the name for: malicious from a score of 0.5 on."""

    BENIGN = 0
    MALICIOUS = 1


class Decision(enum.IntEnum):
    """What was decided about the name."""

    ALLOW = 0
    VET = 1
    BLOCK = 2


class Action(enum.IntEnum):
    """What a DNS server should answer."""

    PASS = 0
    NXDOMAIN = 1
    NODATA = 2
    REFUSED = 3
    SINKHOLE = 4
    DROP = 5


class Source(enum.IntEnum):
    """What decided."""

    MODEL = 0
    OVERRIDE = 1
    BLOCKLIST = 2
    ALLOWLIST = 3
    POPULAR = 4
    SKIPPED = 5


class Flag(enum.IntFlag):
    """Circumstances of a verdict; a newer library may set bits that have no name here."""

    CACHED = 1
    OBSERVED = 2
    FAIL_OPEN = 4
    BREAKER = 8
    DROPPED = 16
    MESSAGE = 32


class Verdict(NamedTuple):
    """Everything the library says about one name."""

    score: float
    """The model's number, 0 to 1; 0 when the model did not run."""
    label: Label
    """Malicious from a score of 0.5 on; benign when the model did not run."""
    decision: Decision
    """Allow, vet or block."""
    action: Action
    """What to answer."""
    source: Source
    """What decided."""
    flags: Flag
    """Circumstances: cached, observed, fail-open and so on."""
    ttl: int
    """Seconds, for answers that the caller makes up."""
    sinkhole4: IPv4Address | None
    """Address for A questions when the action is sinkhole; `None` means no data."""
    sinkhole6: IPv6Address | None
    """Address for AAAA questions when the action is sinkhole; `None` means no data."""
    fpr: float
    """Share of benign names expected at or above this score; 0 if unknown or not scored."""
    model: int
    """The first 8 bytes of the model's SHA-256, as a number."""


class Message(NamedTuple):
    """A line of the library for the host's log."""

    level: int
    """Syslog's levels: 3 error, 4 warning, 5 notice, 6 information."""
    text: str
    """One line, without a line end."""
