"""What is particular to Unbound: its message cache, its Python, its log."""

from __future__ import annotations

import shutil
from pathlib import Path

from servers.base import Server
from servers.unbound import BINDING, SCRIPT, Unbound, unboundmodule
from support.process import wait_until
from support.upstream import ADDRESS4
from test_servers import EVIL, GOOD, RECORD_ALL, assert_passed, block_list

__all__ = ["block_list"]

SERVERS = [Unbound]


def _reload_with_ttl(running: Server, settings: dict[str, object], ttl: int) -> None:
    running.write_settings({**settings, "block.ttl": ttl})
    running.reload()

    def in_force() -> bool:
        answer = running.ask(EVIL)
        return answer.soa is not None and answer.soa.endswith(f" {ttl}")

    wait_until(in_force, lambda: f"not in force:\n{running.log()}", 10)


def test_answers_from_the_cache_are_recorded_once_each_after_any_number_of_reloads(server, block_list) -> None:
    settings = {**block_list, **RECORD_ALL}
    running = server(settings)
    for turn in range(12):
        for _ in range(4):
            assert_passed(running.ask(f"turn{turn}.example"))
        _reload_with_ttl(running, settings, turn + 100)
    running.stop()
    assert [running.store.count(f"turn{turn}.example") for turn in range(12)] == [4] * 12


def test_a_blocked_hit_expires_the_cached_answer(server, folder: Path) -> None:
    listed = folder / "group.txt"
    listed.write_text("games.example\n")
    listed.chmod(0o644)
    group = {"groups.kids.cidr": ["127.0.0.9/32"], "groups.kids.lists.block": [str(listed)]}
    running = server({**RECORD_ALL, **group})
    assert_passed(running.ask("games.example", source="127.0.0.8"))
    # The one answer that was already made: the cache can not be asked to keep it back.
    assert running.ask("games.example", source="127.0.0.9").records == [ADDRESS4]
    for _ in range(3):
        assert running.ask("games.example", source="127.0.0.9").rcode == "NXDOMAIN"
    assert_passed(running.ask("games.example", source="127.0.0.8"))


def test_a_failure_inside_lets_the_query_pass_and_is_logged_once(server) -> None:
    running = server({"test.panic": "score"})
    for number in range(5):
        assert_passed(running.ask(f"host{number}.example"))
    assert running.log().count("error: mlbridge: PanicError") == 1


def test_the_library_s_messages_are_in_unbound_s_log(
    server_class: type[Unbound], build, upstream, folder: Path
) -> None:
    running = server_class(build, folder, upstream.port, RECORD_ALL)
    damaged = running.state_dir / "mlbridge.db"
    damaged.write_bytes(b"not a database" * 100)
    damaged.chmod(0o600)
    with running:

        def logged() -> bool:
            running.ask(GOOD)
            return "mlbridge: store: " in running.log()

        wait_until(logged, lambda: f"nothing about the damaged store:\n{running.log()}", 10)


class Installed(Unbound):
    """Laid out as the README's installation: code in one folder, links and the sample settings in another."""

    def write_config(self) -> None:
        code = self.folder / "lib"
        shutil.copytree(self.build.python_package, code)
        shutil.copy(SCRIPT, code)
        (self.folder / SCRIPT.name).symlink_to(code / SCRIPT.name)
        (self.folder / "unboundmodule.py").symlink_to(unboundmodule())
        self.write_unbound_conf()

    def write_settings(self, settings: object) -> None:
        sample = (BINDING / "mlbridge.toml").read_text()
        sample = sample.replace("/var/lib/unbound/mlbridge", str(self.state_dir)).replace(
            "/etc/unbound", str(self.folder)
        )
        self.settings_file.write_text(sample)

    def environment(self) -> dict[str, str]:
        return {}


def test_the_installation_with_links_and_the_samples_needs_no_python_path(build, upstream, folder: Path) -> None:
    installed = Installed(build, folder, upstream.port, {}, real_user=True)
    checked = installed.check()
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with installed:
        installed.mlbridge("vet", "add", EVIL, "--as", "malicious")

        def judged() -> bool:
            assert_passed(installed.ask(EVIL))
            return ("block", "pass") in {(event.decision, event.action) for event in installed.store.events(EVIL)}

        wait_until(judged, lambda: f"the sample's observe mode records nothing:\n{installed.log()}", 10)
