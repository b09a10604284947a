"""Debian's stock Unbound with `python3-unbound` and the script of bindings/unbound/python."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from .base import Server

BINDING = Path(__file__).resolve().parents[3] / "bindings/unbound/python"
SCRIPT = BINDING / "mlbridge_unbound.py"

_CONFIG = """\
server:
    directory: "{folder}"
    chroot: ""
    username: "{user}"
    pidfile: "{folder}/unbound.pid"
    interface: 127.0.0.1
    port: {port}
    num-threads: 2
    verbosity: 1
    use-syslog: no
    do-not-query-localhost: no
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: 127.0.0.1@{upstream}
include: "{folder}/mlbridge.conf"
"""


class Unbound(Server):
    """Unbound with the sample configuration of bindings/unbound/python, the script linked from the tree."""

    name = "unbound"
    user = "unbound"
    drop_rcode = "REFUSED"

    def write_config(self) -> None:
        (self.folder / SCRIPT.name).symlink_to(SCRIPT)
        self.write_unbound_conf()

    def write_unbound_conf(self) -> None:
        # The sample that administrators copy, with this server's folder in place of Unbound's own.
        sample = (BINDING / "mlbridge.conf").read_text().replace("/etc/unbound", str(self.folder))
        plain = 'server:\n    module-config: "validator iterator"\n'
        (self.folder / "mlbridge.conf").write_text(plain if self.plain else sample)
        self._config.write_text(
            _CONFIG.format(
                folder=self.folder,
                user=self.user if self.real_user else "",
                port=self.port,
                upstream=self.upstream_port,
            )
        )

    @property
    def _config(self) -> Path:
        return self.folder / "unbound.conf"

    def command(self) -> list[str]:
        return ["/usr/sbin/unbound", "-d", "-c", str(self._config)]

    def check_command(self) -> list[str]:
        return ["/usr/sbin/unbound-checkconf", str(self._config)]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{self.build.python_package}:{unboundmodule().parent}"}


@cache
def unboundmodule() -> Path:
    """Where Debian put the module that Unbound does not find by itself."""
    listed = subprocess.run(["dpkg", "-L", "python3-unbound"], capture_output=True, text=True, check=True)
    (path,) = (line for line in listed.stdout.splitlines() if line.endswith("/unboundmodule.py"))
    return Path(path)
