"""The server that the servers under test ask: NSD with a root zone of wildcards, so that every name exists."""

from __future__ import annotations

import sys
from pathlib import Path

from .process import Process, free_port, wait_until
from .query import answers

ADDRESS4 = "198.51.100.7"
ADDRESS6 = "2001:db8::7"
TTL = 300

_ZONE = f"""\
$ORIGIN .
$TTL {TTL}
@ SOA ns. hostmaster.ns. 1 3600 600 86400 60
@ NS ns.
ns. A 127.0.0.1
* A {ADDRESS4}
* AAAA {ADDRESS6}
* MX 10 mail.example.
* TXT "from upstream"
"""

_CONFIG = """\
server:
    ip-address: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    database: ""
    zonesdir: "{folder}"
    pidfile: "{folder}/nsd.pid"
    xfrdfile: "{folder}/xfrd.state"
    zonelistfile: "{folder}/zone.list"
    server-count: 1
    rrl-ratelimit: 0
remote-control:
    control-enable: no
zone:
    name: "."
    zonefile: "root.zone"
"""


class Upstream:
    """A running NSD; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        (folder / "root.zone").write_text(_ZONE)
        config = folder / "nsd.conf"
        config.write_text(_CONFIG.format(port=self.port, folder=folder))
        self._process = Process(["/usr/sbin/nsd", "-d", "-c", str(config)], folder / "nsd.log")
        wait_until(lambda: answers(self.port), lambda: f"nsd does not answer:\n{self._process.output()}")

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.stop()


def main() -> None:
    """Runs in a folder given as the argument, prints the port, and ends with its standard input: for scripts."""
    with Upstream(Path(sys.argv[1])) as upstream:
        print(upstream.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
