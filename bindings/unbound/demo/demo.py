"""The demonstration behind `make demo`; `run` prepares what it needs. Everything lives in a temporary folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/hosts"))

from servers.base import Build  # noqa: E402  (the path is set above)
from servers.unbound import Unbound  # noqa: E402
from support.process import wait_until  # noqa: E402
from support.upstream import ADDRESS4, Upstream  # noqa: E402

HONEYPOT = "192.0.2.99"
LISTED = "login.bank-update.example"
SETTINGS = """\
state_dir = "{state_dir}"

[threshold]         # set for this demonstration, so that a few names show every outcome;
vet = 0.5           # a real server leaves them to the model
block = 0.99

[lists]
block = ["block.txt"]

[block]
action = "nxdomain"
ttl = 60

[honeypot]
ipv4 = "{honeypot}"

[record]
allow = "all"       # the default keeps one allowed name in a hundred
client = "full"
"""


class Case(NamedTuple):
    """A name to ask for, and what must come of it."""

    name: str
    status: str
    answer: str
    decision: str
    source: str
    words: str


BEFORE = [
    Case("www.wikipedia.org", "NOERROR", ADDRESS4, "allow", "model", "looks benign: resolved as always"),
    Case("mail.example.com", "NOERROR", ADDRESS4, "allow", "model", "looks benign: resolved as always"),
    Case("3e9xdn803awtc42dbn4zca11fz1ps2nb.net", "NXDOMAIN", "", "block", "model", "looks generated: blocked"),
    Case("1d7a486cugx59flvid5f.com", "NXDOMAIN", "", "block", "model", "looks generated: blocked"),
    Case("d3w0l8qu1p3.net", "NOERROR", ADDRESS4, "vet", "model", "doubtful: resolved, and waits for an administrator"),
    Case(LISTED, "NXDOMAIN", "", "block", "blocklist", "on the block list: blocked"),
]
DECISIONS = [
    ("1d7a486cugx59flvid5f.com", "benign"),
    ("example.com", "malicious"),
    ("d3w0l8qu1p3.net", "honeypot"),
]
AFTER = [
    Case("1d7a486cugx59flvid5f.com", "NOERROR", ADDRESS4, "allow", "override", "declared benign: resolved"),
    Case("shop.example.com", "NXDOMAIN", "", "block", "override", "below a name declared malicious: blocked"),
    Case("www.d3w0l8qu1p3.net", "NOERROR", HONEYPOT, "block", "override", "answered with the honeypot's address"),
]


class DemoUnbound(Unbound):
    """The tests' Unbound, with settings written for readers."""

    def write_settings(self, settings: object) -> None:
        self.settings_file.write_text(SETTINGS.format(state_dir=self.state_dir, honeypot=HONEYPOT))
        self.settings_file.chmod(0o644)
        blocked = self.folder / "block.txt"
        blocked.write_text(f"{LISTED}\n")
        blocked.chmod(0o644)


def main() -> int:
    """Runs the demonstration; the exit status says whether all was as expected."""
    folder = Path(tempfile.mkdtemp(prefix="mlbridge-demo-"))
    try:
        with Upstream(folder / "nsd") as upstream:
            unbound = DemoUnbound(_build(folder), folder, upstream.port, {})
            with unbound:
                failed = _ask_all(unbound)
                unbound.stop()
            failed += _show_records(unbound)
    finally:
        shutil.rmtree(folder)
    if failed:
        print("\nNot as expected:\n  " + "\n  ".join(failed))
        return 1
    print(
        f"\nAll {len(BEFORE) + len(AFTER)} answers and recorded verdicts are the expected ones. Everything is stopped."
    )
    return 0


def _build(folder: Path) -> Build:
    """Lays the Python package and the built library out as an installed wheel has them."""
    target = ROOT / "target/release"
    package = folder / "python/mlbridge"
    shutil.copytree(ROOT / "bindings/python/src/mlbridge", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(target / "libmlbridge.so", package)
    return Build(target / "libmlbridge.so", target / "mlbridge", package.parent)


def _ask_all(unbound: Unbound) -> list[str]:
    print(f"\nA real Unbound with the library inside answers on 127.0.0.1 port {unbound.port}. Its mlbridge.toml:\n")
    print(_indented(unbound.settings_file.read_text()))
    print("\nQueries of a client, with dig:\n")
    failed = _ask(unbound, BEFORE)

    print("\nAn administrator decides:\n")
    for name, word in DECISIONS:
        print(f"  $ mlbridge vet add {name} --as {word}")
        unbound.mlbridge("vet", "add", name, "--as", word, "--author", "demo")
    first = AFTER[0]
    wait_until(
        lambda: _dig(unbound, first.name)[0] == first.status, "the decisions are not in force after 5 seconds", 5
    )
    print("\nThe running server follows within a second:\n")
    return failed + _ask(unbound, AFTER)


def _ask(unbound: Unbound, cases: list[Case]) -> list[str]:
    failed = []
    for case in cases:
        status, answer = _dig(unbound, case.name)
        print(f"  {case.name:38} {status:9} {answer:15} {case.words}", flush=True)
        if (status, answer) != (case.status, case.answer):
            failed.append(f"{case.name}: answered {status} {answer}, expected {case.status} {case.answer}")
    return failed


def _dig(unbound: Unbound, name: str) -> tuple[str, str]:
    """The status and the addresses that dig shows."""
    command = ["dig", "@127.0.0.1", "-p", str(unbound.port), "+noall", "+comments", "+answer", name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    status = re.search(r"status: (\w+)", output)
    addresses = re.findall(r"\sIN\s+A\s+(\S+)", output)
    return (status[1] if status else "no answer"), " ".join(addresses)


def _show_records(unbound: Unbound) -> list[str]:
    print("\nWhat the store holds after the server's end, by mlbridge history:\n")
    print(_indented(unbound.mlbridge("history")))
    print("\n  (ready.example is this demonstration's own question whether the server is up.)")
    recorded = {(event.name, event.decision, event.source) for event in unbound.store.events()}
    return [
        f"{case.name}: no record says {case.decision} by {case.source}"
        for case in BEFORE + AFTER
        if (case.name, case.decision, case.source) not in recorded
    ]


def _indented(text: str) -> str:
    return "\n".join("  " + line for line in text.strip().splitlines())


if __name__ == "__main__":
    sys.exit(main())
