"""What every DNS server must do with the library inside; runs on each server of `servers.ALL`."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from pathlib import Path

import dns.exception
import pytest
from servers.base import Server
from support.process import wait_until
from support.query import Answer
from support.upstream import ADDRESS4, ADDRESS6, TTL

EVIL = "evil.example"
GOOD = "good.example"
RECORD_ALL = {"record.allow": "all", "record.client": "full", "record.coalesce_s": 0, "store.flush_ms": 50}


@pytest.fixture
def block_list(folder: Path) -> dict[str, list[str]]:
    """Settings that block `evil.example` and all below it."""
    path = folder / "block.txt"
    path.write_text(f"||{EVIL}^\n")
    path.chmod(0o644)
    return {"lists.block": [str(path)]}


def assert_passed(answer: Answer) -> None:
    assert (answer.rcode, answer.records) == ("NOERROR", [ADDRESS4])
    assert answer.ttl is not None and answer.ttl <= TTL


def assert_made_up(answer: Answer, rcode: str, records: list[str], ttl: int | None) -> None:
    assert (answer.rcode, answer.records, answer.ttl) == (rcode, records, ttl)
    assert not answer.authenticated, "a made-up answer claims to be validated"


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize(("action", "rcode"), [("nxdomain", "NXDOMAIN"), ("nodata", "NOERROR"), ("refused", "REFUSED")])
def test_a_blocked_name_gets_the_action_s_answer(server, block_list, action: str, rcode: str, tcp: bool) -> None:
    running = server({**block_list, "block.action": action, "block.ttl": 33})
    for kind in ("A", "AAAA", "MX", "TXT", "HTTPS"):
        for name in (EVIL, EVIL, "Deep.Below.EVIL.example"):
            answer = running.ask(name, kind, tcp=tcp)
            assert_made_up(answer, rcode, [], None)
            if action != "refused":
                assert answer.soa is not None and " 33 IN SOA " in answer.soa and answer.soa.endswith(" 33")
        assert running.ask(GOOD, kind, tcp=tcp).rcode == "NOERROR"
    assert_passed(running.ask(GOOD, tcp=tcp))
    assert running.ask(GOOD, "AAAA", tcp=tcp).records == [ADDRESS6]


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_sinkhole_answers_with_its_addresses(server, block_list, tcp: bool) -> None:
    addresses = {"sinkhole.ipv4": "192.0.2.66", "sinkhole.ipv6": "2001:db8::66"}
    running = server({**block_list, "block.action": "sinkhole", "block.ttl": 45, **addresses})
    for _ in range(2):
        assert_made_up(running.ask(EVIL, "A", tcp=tcp), "NOERROR", ["192.0.2.66"], 45)
        assert_made_up(running.ask(EVIL, "AAAA", tcp=tcp), "NOERROR", ["2001:db8::66"], 45)
        assert_made_up(running.ask(EVIL, "MX", tcp=tcp), "NOERROR", [], None)
    assert_passed(running.ask(GOOD, tcp=tcp))


def test_a_sinkhole_without_an_address_of_the_family_has_no_data(server, block_list) -> None:
    running = server({**block_list, "block.action": "sinkhole", "sinkhole.ipv4": "192.0.2.66"})
    assert_made_up(running.ask(EVIL, "A"), "NOERROR", ["192.0.2.66"], 60)
    assert_made_up(running.ask(EVIL, "AAAA"), "NOERROR", [], None)


def test_a_name_to_drop_gets_no_address(server, server_class: type[Server], block_list) -> None:
    running = server({**block_list, "block.action": "drop"})
    if server_class.drop_rcode is None:
        with pytest.raises(dns.exception.Timeout):
            running.ask(EVIL, timeout=1.0)
    else:
        assert_made_up(running.ask(EVIL), server_class.drop_rcode, [], None)
    assert_passed(running.ask(GOOD))


def test_names_of_odd_bytes_and_of_full_length_are_answered_and_blocked(server, block_list) -> None:
    running = server({**block_list, "block.action": "sinkhole", "sinkhole.ipv4": "192.0.2.66"})
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 46])
    for label in ("with\\000zero", "a\\.dot", "\\255\\200", "_dmarc", "sp\\032ace", "-"):
        assert_passed(running.ask(f"{label}.{GOOD}"))
        assert_made_up(running.ask(f"{label}.{EVIL}"), "NOERROR", ["192.0.2.66"], 60)
    assert_passed(running.ask(f"{longest}.{GOOD}"))
    assert_made_up(running.ask(f"{longest}.{EVIL}"), "NOERROR", ["192.0.2.66"], 60)


def test_the_model_s_score_against_the_thresholds_decides(server, build) -> None:
    names = [
        "www.wikipedia.org",
        "mail.example.com",
        "9f8a7xq2kz3vwj5p.example.com",
        "shop.example.net",
        "qzxkvj7w.info",
    ]
    with build.engine() as engine:
        ranked = sorted(zip(engine.score(names), names))
    (low, allowed), (middle, vetted), (high, blocked) = ranked[0], ranked[2], ranked[-1]
    assert low < middle < high, "the model gives these names one score; choose others"
    thresholds = {"threshold.vet": (low + middle) / 2, "threshold.block": (middle + high) / 2}
    running = server({**thresholds, **RECORD_ALL, "vet.action": "pass"})
    assert_passed(running.ask(allowed))
    assert_passed(running.ask(vetted))
    assert running.ask(blocked).rcode == "NXDOMAIN"
    running.stop()
    decided = {event.name: (event.decision, event.source) for event in running.store.events()}
    assert decided[allowed] == ("allow", "model")
    assert decided[vetted] == ("vet", "model")
    assert decided[blocked] == ("block", "model")


def test_observe_mode_changes_no_answer_and_records_what_would_have_been(server, block_list) -> None:
    running = server({**block_list, **RECORD_ALL, "mode": "observe"})
    for name in (EVIL, GOOD):
        assert_passed(running.ask(name))
        assert_passed(running.ask(name))
    running.stop()
    events = running.store.events(EVIL)
    assert {(event.decision, event.action) for event in events} == {("block", "pass")}
    assert running.store.count(EVIL) == 2


def test_an_administrator_s_decision_is_in_force_in_the_running_server(server, block_list) -> None:
    running = server({**block_list, **RECORD_ALL, "honeypot.ipv4": "192.0.2.99"})
    assert_passed(running.ask("seen-first.example"))
    assert running.ask(EVIL).rcode == "NXDOMAIN"

    running.mlbridge("vet", "add", "fresh.example", "--as", "malicious")
    wait_until(lambda: running.ask("www.fresh.example").rcode == "NXDOMAIN", "malicious is not blocked", 5)

    running.mlbridge("vet", "add", EVIL, "--as", "benign")
    wait_until(lambda: running.ask(EVIL).rcode == "NOERROR", "benign is still blocked", 5)

    running.mlbridge("vet", "add", "trap.example", "--as", "honeypot")
    wait_until(lambda: running.ask("trap.example").records == ["192.0.2.99"], "honeypot is not answered", 5)

    # A name that the server answered before, and may have in its cache.
    running.mlbridge("vet", "add", "seen-first.example", "--as", "malicious")
    wait_until(lambda: running.ask("seen-first.example").rcode == "NXDOMAIN", "a cached name is not blocked", 5)

    running.mlbridge("vet", "remove", "fresh.example")
    wait_until(lambda: running.ask("www.fresh.example").rcode == "NOERROR", "a removed decision is in force", 5)


def test_the_client_s_address_is_recorded_and_decides_its_group(server, folder: Path) -> None:
    path = folder / "group.txt"
    path.write_text("games.example\n")
    path.chmod(0o644)
    group = {"groups.kids.cidr": ["127.0.0.9/32"], "groups.kids.lists.block": [str(path)]}
    running = server({**RECORD_ALL, **group})
    assert running.ask("games.example", source="127.0.0.9").rcode == "NXDOMAIN"
    assert_passed(running.ask("games.example", source="127.0.0.8"))
    running.stop()
    recorded = {event.client: event.decision for event in running.store.events("games.example")}
    assert recorded == {"127.0.0.9": "block", "127.0.0.8": "allow"}


def test_what_the_server_asks_for_itself_is_not_recorded(server) -> None:
    running = server(RECORD_ALL)
    assert_passed(running.ask(GOOD))
    running.stop()
    assert {event.name for event in running.store.events()} <= {GOOD, "ready.example"}


def test_a_reload_puts_changed_settings_in_force(server, block_list) -> None:
    running = server({**block_list, "block.action": "nxdomain"})
    assert running.ask(EVIL).rcode == "NXDOMAIN"
    running.write_settings({**block_list, "block.action": "refused"})
    running.reload()
    wait_until(lambda: running.ask(EVIL).rcode == "REFUSED", lambda: f"not in force:\n{running.log()}", 10)
    assert_passed(running.ask(GOOD))


BROKEN = {
    "value": "[block]\naction = 'explode'\n",
    "contradiction": "[block]\naction = 'sinkhole'\n",
    "unknown": "[nonsense]\nkey = 1\n",
    "syntax": "block = = nxdomain\n",
    "gone": None,
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_reload_with_broken_settings_keeps_the_last_good_ones(server, block_list, broken: str | None) -> None:
    running = server({**block_list, "block.action": "nodata", "block.ttl": 77})
    if broken is None:
        running.settings_file.unlink()
    else:
        running.settings_file.write_text(broken)
    for _ in range(2):
        seen = running.log().count("stay in force")
        running.reload()
        wait_until(
            lambda seen=seen: running.log().count("stay in force") > seen,
            lambda: f"no word of it:\n{running.log()}",
            10,
        )
        wait_until(running.answering, lambda: f"no answers:\n{running.log()}", 10)
        answer = running.ask(EVIL)
        assert_made_up(answer, "NOERROR", [], None)
        assert answer.soa is not None and answer.soa.endswith(" 77")
        assert_passed(running.ask(GOOD))
    running.write_settings({**block_list, "block.action": "refused"})
    running.reload()
    wait_until(lambda: running.ask(EVIL).rcode == "REFUSED", lambda: f"not in force:\n{running.log()}", 10)


def test_a_first_start_with_broken_settings_is_refused_with_the_reason(
    server_class: type[Server], build, upstream, folder: Path
) -> None:
    stopped = server_class(build, folder, upstream.port, {"block.action": "explode"})
    checked = stopped.check()
    assert checked.returncode != 0
    assert 'block.action: "explode"' in checked.stdout + checked.stderr
    with pytest.raises(AssertionError, match=r'block\.action: "explode"'):
        stopped.start()


def test_a_configuration_check_leaves_nothing_behind(server_class: type[Server], build, upstream, folder: Path) -> None:
    stopped = server_class(build, folder, upstream.port, RECORD_ALL)
    stopped.state_dir.rmdir()
    before = sorted(path for path in folder.rglob("*"))
    checked = stopped.check()
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_configuration_check_does_not_disturb_the_running_server(server, block_list) -> None:
    running = server({**block_list, **RECORD_ALL})
    assert_passed(running.ask("before.example"))
    checked = running.check()
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert_passed(running.ask("after.example"))
    assert running.ask(EVIL).rcode == "NXDOMAIN"
    running.stop()
    assert {"before.example", "after.example", EVIL} <= {event.name for event in running.store.events()}


def test_after_a_clean_stop_the_store_counts_every_query(server, block_list) -> None:
    running = server({**block_list, **RECORD_ALL, "record.coalesce_s": 10, "store.flush_ms": 1000})
    asked = {f"host{number}.example": number % 3 + 1 for number in range(30)} | {EVIL: 5}
    for name, times in asked.items():
        for turn in range(times):
            running.ask(name, tcp=turn % 2 == 1)
    running.stop()
    assert {name: running.store.count(name) for name in asked} == asked
    assert {event.decision for event in running.store.events(EVIL)} == {"block"}
    assert {event.action for event in running.store.events(EVIL)} == {"nxdomain"}


def test_after_a_kill_the_store_has_what_was_flushed_and_the_server_goes_on(server, block_list) -> None:
    running = server({**block_list, **RECORD_ALL})
    for number in range(20):
        running.ask(f"host{number}.example")
    names = {f"host{number}.example" for number in range(20)}
    wait_until(lambda: names <= {event.name for event in running.store.events()}, "nothing is flushed", 10)
    running.kill()
    assert names <= {event.name for event in running.store.events()}
    running.start()
    assert_passed(running.ask("again.example"))
    assert running.ask(EVIL).rcode == "NXDOMAIN"
    running.stop()
    kept = {event.name for event in running.store.events()}
    assert names | {"again.example", EVIL} <= kept


def test_it_runs_as_the_server_s_own_user(server, server_class: type[Server], block_list) -> None:
    running = server({**block_list, **RECORD_ALL}, real_user=True)
    assert_passed(running.ask(GOOD))
    assert running.ask(EVIL).rcode == "NXDOMAIN"
    uid = pwd.getpwnam(server_class.user).pw_uid
    assert Path(f"/proc/{running.process.pid}").stat().st_uid == uid
    running.mlbridge("vet", "add", "fresh.example", "--as", "malicious")
    wait_until(lambda: running.ask("fresh.example").rcode == "NXDOMAIN", "malicious is not blocked", 5)
    running.write_settings({**block_list, **RECORD_ALL, "block.action": "refused"})
    running.reload()
    wait_until(lambda: running.ask(EVIL).rcode == "REFUSED", lambda: f"not in force:\n{running.log()}", 10)
    running.stop()
    assert {GOOD, EVIL, "fresh.example"} <= {event.name for event in running.store.events()}
    for path in running.state_dir.iterdir():
        status = path.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (uid, 0o600), path


def test_under_load_every_query_gets_its_answer_and_is_counted(server, block_list, folder: Path) -> None:
    running = server({**block_list, **RECORD_ALL, "record.client": "none", "queue.events": 1 << 20})
    queries = folder / "queries.txt"
    names = [f"host{number}.{EVIL if number % 10 == 0 else 'example'}" for number in range(2000)]
    queries.write_text("".join(f"{name} A\n" for name in names))
    before = running.queries_counted()
    command = f"dnsperf -s 127.0.0.1 -p {running.port} -d {queries} -n 5 -c 8 -q 50".split()
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    fields = dict(line.strip().split(":", 1) for line in report.splitlines() if ":" in line)
    assert fields["Queries sent"].split()[0] == fields["Queries completed"].split()[0] == "10000"
    assert "NOERROR 9000 " in fields["Response codes"] and "NXDOMAIN 1000 " in fields["Response codes"]
    running.stop()
    assert running.store.count() - before == 10000


def test_reloads_under_load_never_let_a_blocked_name_through(server, block_list, folder: Path) -> None:
    running = server({**block_list, **RECORD_ALL})
    queries = folder / "queries.txt"
    queries.write_text("".join(f"host{number}.{EVIL} A\n" for number in range(1000)))
    command = f"dnsperf -s 127.0.0.1 -p {running.port} -d {queries} -l 4 -q 20 -Q 2000".split()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        for ttl in range(1, 7):
            # Every second time settings that fail: the last good ones must hold meanwhile.
            running.write_settings({**block_list, "block.ttl": ttl if ttl % 2 else -1})
            running.reload()
            wait_until(running.answering, lambda: f"no answers:\n{running.log()}", 10)
        report = load.communicate()[0]
    codes = next(line for line in report.splitlines() if "Response codes" in line)
    assert "NXDOMAIN" in codes and "NOERROR" not in codes, report


def test_nothing_is_left_open_after_reloads(server, block_list) -> None:
    running = server({**block_list, **RECORD_ALL})
    process = Path(f"/proc/{running.process.pid}")

    def settle(ttl: int) -> None:
        running.write_settings({**block_list, **RECORD_ALL, "block.ttl": ttl})
        running.reload()

        def in_force() -> bool:
            answer = running.ask(EVIL)
            return answer.soa is not None and answer.soa.endswith(f" {ttl}")

        wait_until(in_force, lambda: f"not in force:\n{running.log()}", 10)

    def held() -> tuple[int, int]:
        """How many files of the store are open, and how many threads there are."""
        files = 0
        for link in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                files += os.readlink(link).startswith(str(running.state_dir))
        return files, len(os.listdir(process / "task"))

    # The first rounds show what is normal; a leak of one a reload would go beyond it in the others.
    normal = (0, 0)
    for ttl in range(1, 5):
        settle(ttl)
        wait_until(lambda: held()[0] >= 4, "the store's lock, database, log and index are not open", 10)
        normal = tuple(map(max, normal, held()))
    for ttl in range(5, 20):
        settle(ttl)
    wait_until(
        lambda: all(now <= most for now, most in zip(held(), normal)), lambda: f"at first {normal}, now {held()}", 10
    )
