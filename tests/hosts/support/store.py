"""The embedded store as another program sees it: opened read-only with Python's own SQLite."""

from __future__ import annotations

import ipaddress
import sqlite3
from dataclasses import dataclass
from pathlib import Path


DECISIONS = ("allow", "vet", "block")
ACTIONS = ("pass", "nxdomain", "nodata", "refused", "sinkhole", "drop")
SOURCES = ("model", "override", "blocklist", "allowlist", "popular", "skipped")


@dataclass(frozen=True)
class Event:
    """One row of the history."""

    name: str
    client: str | None
    qtype: int
    decision: str
    action: str
    source: str
    count: int


class Store:
    """The store in a `state_dir`."""

    def __init__(self, state_dir: Path) -> None:
        self._database = state_dir / "mlbridge.db"

    def is_made(self) -> bool:
        """Whether the server's first event has made it."""
        if not self._database.exists():
            return False
        connection = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10)
        try:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'event'").fetchone())
        finally:
            connection.close()

    def events(self, name: str | None = None) -> list[Event]:
        """All rows, or those of one name, oldest first; nothing if there is no table yet."""
        if not self.is_made():
            return []
        connection = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10)
        try:
            rows = connection.execute(
                "SELECT name, client, qtype, decision, action, source, count FROM event ORDER BY row"
            ).fetchall()
        finally:
            connection.close()
        events = [
            Event(
                name,
                None if client is None else str(ipaddress.ip_address(client)),
                qtype,
                DECISIONS[decision],
                ACTIONS[action],
                SOURCES[source],
                count,
            )
            for name, client, qtype, decision, action, source, count in rows
        ]
        return [event for event in events if name is None or event.name == name]

    def count(self, name: str | None = None) -> int:
        """How many queries the rows stand for."""
        return sum(event.count for event in self.events(name))
