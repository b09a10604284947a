"""What an engine does for a Python program, call by call."""

from __future__ import annotations

import copy
import ipaddress
import math
import pickle
import struct
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlbridge
from mlbridge import Action, Decision, Engine, Flag, Label, Source

OpenEngine = Callable[..., Engine]


@pytest.fixture
def block_list(tmp_path: Path) -> Path:
    path = tmp_path / "block.txt"
    path.write_text("bad.example\n*.below.example\n")
    return path


def test_a_verdict_says_everything_in_python_s_terms(engine: OpenEngine, block_list: Path) -> None:
    opened = engine(
        {"lists.block": [block_list]},
        block_action="sinkhole",
        block_ttl=7,
        sinkhole_ipv4="192.0.2.66",
    )
    verdict = opened.classify("BAD.example.", client="192.0.2.7", qtype=28)
    assert verdict.decision is Decision.BLOCK
    assert verdict.action is Action.SINKHOLE
    assert verdict.source is Source.BLOCKLIST
    assert verdict.label in Label
    assert verdict.ttl == 7
    assert verdict.sinkhole4 == ipaddress.IPv4Address("192.0.2.66")
    assert verdict.sinkhole6 is None
    assert not verdict.flags & Flag.FAIL_OPEN
    assert verdict.model != 0


def test_text_bytes_and_wire_form_are_the_same_name(engine: OpenEngine) -> None:
    opened = engine()
    text = opened.classify("www.Example.com")
    assert 0.0 <= text.score <= 1.0
    for other in (
        opened.classify("www.example.com."),
        opened.classify(b"WWW.EXAMPLE.COM"),
        opened.classify_wire(b"\3www\7example\3com\0"),
    ):
        assert other._replace(flags=Flag(0)) == text._replace(flags=Flag(0))
    assert opened.classify("bücher.example").score == opened.classify("xn--bcher-kva.example").score


@pytest.mark.parametrize(
    "client",
    [
        None,
        "192.0.2.7",
        "2001:db8::7",
        b"\xc0\0\2\7",
        ipaddress.ip_address("2001:db8::7"),
        ipaddress.ip_address("192.0.2.7"),
    ],
)
def test_a_client_may_be_given_in_every_form(engine: OpenEngine, client: Any) -> None:
    assert engine().classify("www.example.com", client).decision in Decision


@pytest.mark.parametrize("name", [".", "localhost", "7.2.0.192.in-addr.arpa", "printer.local"])
def test_names_that_are_no_public_domain_are_skipped(engine: OpenEngine, name: str) -> None:
    verdict = engine().classify(name)
    assert (verdict.source, verdict.decision, verdict.score) == (
        Source.SKIPPED,
        Decision.ALLOW,
        0.0,
    )


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".example", ".".join(["abcdefgh"] * 30)])
def test_what_is_no_name_raises(engine: OpenEngine, name: str) -> None:
    with pytest.raises(mlbridge.NameFormError, match="not a domain name") as raised:
        engine().classify(name)
    assert raised.value.status == 2
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("qname", [b"", b"\3www", b"\300\14", b"\3www\0rest"])
def test_what_is_no_wire_form_raises(engine: OpenEngine, qname: bytes) -> None:
    with pytest.raises(mlbridge.NameFormError):
        engine().classify_wire(qname)


def test_what_is_no_client_or_question_type_is_named(engine: OpenEngine) -> None:
    opened = engine()
    with pytest.raises(mlbridge.InvalidError, match="not a client address: 'here'"):
        opened.classify("www.example.com", client="here")
    wrong: Any = 7
    with pytest.raises(TypeError, match="not a client address: 7"):
        opened.classify("www.example.com", client=wrong)
    for qtype in (-1, 65536):
        with pytest.raises(mlbridge.InvalidError, match=f"not a question type: {qtype}"):
            opened.classify("www.example.com", qtype=qtype)
    assert opened.classify("www.example.com", qtype=65535).decision in Decision


def test_a_client_of_five_bytes_raises(engine: OpenEngine) -> None:
    with pytest.raises(mlbridge.InvalidError, match="not a client address: b'12345'"):
        engine().classify("www.example.com", b"12345")


def test_scores_are_those_of_classify_to_the_bit(engine: OpenEngine) -> None:
    opened = engine()
    names: list[str | bytes] = ["www.example.com", "xkqjzzq.example.org", "a..b", b"mail.example.net", "x" * 64]
    scores = opened.score(names)
    assert isinstance(scores, array) and scores.typecode == "f"
    assert [math.isnan(score) for score in scores] == [False, False, True, False, True]
    single = [opened.classify(names[index]).score for index in (0, 1, 3)]
    assert struct.pack("3f", *(scores[index] for index in (0, 1, 3))) == struct.pack("3f", *single)


def test_many_scores_keep_their_order(engine: OpenEngine) -> None:
    opened = engine()
    two = opened.score(["www.example.com", "xkqjzzq.example.org"])
    many = opened.score(name for _ in range(5000) for name in ("www.example.com", "xkqjzzq.example.org"))
    assert many == two * 5000
    assert opened.score([]) == array("f")


@pytest.mark.parametrize("names", ["www.example.com", b"www.example.com"])
def test_one_name_is_no_list_of_names(engine: OpenEngine, names: Any) -> None:
    with pytest.raises(TypeError, match="give a list"):
        engine().score(names)


def test_scoring_records_nothing(engine: OpenEngine) -> None:
    opened = engine(record_allow="all")
    before = opened.stats()
    opened.score(["www.example.com"] * 10)
    assert opened.stats()["classified"] == before["classified"]


def test_an_explanation_is_a_dictionary_with_the_score(engine: OpenEngine) -> None:
    opened = engine()
    explained = opened.explain("www.example.com")
    assert explained["name"] == "www.example.com"
    assert explained["score"] == pytest.approx(opened.classify("www.example.com").score, abs=1e-5)
    with pytest.raises(mlbridge.NameFormError, match=r"'a\.\.b'"):
        opened.explain("a..b")


def test_counters_grow_with_the_calls(engine: OpenEngine) -> None:
    opened = engine()
    for _ in range(3):
        opened.classify("www.example.com")
    opened.classify("localhost")
    stats = opened.stats()
    assert stats["classified"] == 4
    assert stats["skipped"] == 1
    assert "mlbridge_" in opened.metrics()


def test_observe_mode_decides_and_passes(engine: OpenEngine, block_list: Path) -> None:
    verdict = engine({"lists": {"block": [block_list]}}, mode="observe").classify("bad.example")
    assert (verdict.decision, verdict.action) == (Decision.BLOCK, Action.PASS)
    assert verdict.flags & Flag.OBSERVED


def test_settings_come_from_file_then_mapping_then_keywords(engine: OpenEngine, tmp_path: Path) -> None:
    (tmp_path / "block.txt").write_text("bad.example\n")
    config = tmp_path / "mlbridge.toml"
    config.write_text('[lists]\nblock = ["block.txt"]\n[block]\nttl = 1\naction = "refused"\n')
    config.chmod(0o644)
    assert engine(config=config).classify("bad.example").ttl == 1
    assert engine({"block.ttl": 2}, config=config).classify("bad.example").ttl == 2
    last = engine({"block.ttl": 2}, config=config, block_ttl=3).classify("bad.example")
    assert (last.ttl, last.action) == (3, Action.REFUSED)


def test_a_reload_counts_for_the_next_call_and_a_bad_one_changes_nothing(engine: OpenEngine, block_list: Path) -> None:
    opened = engine(lists_block=[block_list])
    assert opened.classify("bad.example").action is Action.NXDOMAIN
    opened.reload(lists_block=[block_list], block_action="nodata")
    assert opened.classify("bad.example").action is Action.NODATA
    with pytest.raises(mlbridge.ConfigError, match=r"sinkhole\.ipv4"):
        opened.reload(lists_block=[block_list], block_action="sinkhole")
    assert opened.classify("bad.example").action is Action.NODATA


def test_attach_gives_the_last_good_engine_of_an_instance(engine: OpenEngine, library: Path, block_list: Path) -> None:
    instance = "test-attach"
    first = engine(instance=instance, lists_block=[block_list], block_ttl=11)
    first.close()
    with pytest.raises(mlbridge.ConfigError):
        engine(instance=instance, lists_block=[block_list], block_action="sinkhole")
    with Engine.attach(instance, library=library) as attached:
        assert attached.classify("bad.example").ttl == 11


def test_attach_to_nothing_raises(library: Path) -> None:
    with pytest.raises(mlbridge.InvalidError, match="'never-opened' has no engine"):
        Engine.attach("never-opened", library=library)


def test_flush_without_a_store_returns(engine: OpenEngine) -> None:
    opened = engine()
    opened.classify("www.example.com")
    opened.flush(timeout=5.0)
    assert opened.sink_error() == ""


def test_a_flush_that_fails_says_what_is_wrong(engine: OpenEngine, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "lock").mkdir()
    opened = engine(state_dir=state, record_allow="all")
    opened.classify("www.example.com")
    with pytest.raises(mlbridge.StoreError, match="lock: Is a directory"):
        opened.flush()


def test_what_is_recorded_is_on_disk_after_a_flush(engine: OpenEngine, tmp_path: Path) -> None:
    state = tmp_path / "state"
    opened = engine(state_dir=state, record_allow="all")
    for number in range(10):
        opened.classify(f"www{number}.example.com", client="192.0.2.7")
    opened.flush()
    stats = opened.stats()
    assert stats["stored"] == 10
    assert {path.name for path in state.iterdir()} >= {"mlbridge.db", "lock"}


def test_a_message_is_text_with_a_level_or_none(engine: OpenEngine, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    damaged = state / "mlbridge.db"
    damaged.write_bytes(b"not a database" * 100)
    damaged.chmod(0o600)
    opened = engine(state_dir=state, record_allow="all")
    deadline = time.monotonic() + 10
    while not opened.classify("www.example.com").flags & Flag.MESSAGE:
        assert time.monotonic() < deadline, "no message about the damaged store"
    message = opened.message()
    assert message is not None
    assert message.text and "\n" not in message.text
    assert 0 <= message.level <= 7
    while opened.message() is not None:
        pass
    assert not opened.classify("www.example.net").flags & Flag.MESSAGE


def test_a_closed_engine_says_so(engine: OpenEngine) -> None:
    opened = engine()
    assert repr(opened) == "<mlbridge.Engine open>"
    with opened as same:
        assert same is opened
    assert opened.closed and repr(opened) == "<mlbridge.Engine closed>"
    opened.close()
    for call in (
        lambda: opened.classify("a.example"),
        lambda: opened.classify_wire(b"\1a\0"),
        lambda: opened.score(["a.example"]),
        lambda: opened.explain("a.example"),
        opened.stats,
        opened.metrics,
        opened.message,
        opened.sink_error,
        opened.flush,
        opened.reload,
    ):
        with pytest.raises(mlbridge.ClosedError, match="the engine is closed"):
            call()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_can_not_be_duplicated(engine: OpenEngine, duplicate: Callable[[Engine], object]) -> None:
    opened = engine()
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        duplicate(opened)
    assert opened.classify("www.example.com").decision is Decision.ALLOW


def test_an_engine_nobody_holds_is_closed(library: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    opened = Engine(library=library, state_dir=state, record_allow="all")
    opened.classify("www.example.com")
    del opened
    with Engine(library=library, state_dir=state, record_allow="all") as again:
        again.classify("www.example.com")
        again.flush()


def test_a_library_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(mlbridge.LibraryError, match=r"none\.so"):
        Engine(library=tmp_path / "none.so")
    libm = next(line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libm.so" in line)
    with pytest.raises(mlbridge.LibraryError, match="no function mlb_abi_version; not libmlbridge"):
        mlbridge.load(libm)


def test_a_panic_inside_is_an_exception(engine: OpenEngine) -> None:
    opened = engine({"test.panic": "score"})
    with pytest.raises(mlbridge.PanicError) as raised:
        opened.classify("www.example.com")
    assert raised.value.status == 10
    assert opened.classify("localhost").source is Source.SKIPPED


def test_the_version_is_the_crate_s(library: Path) -> None:
    assert mlbridge.load(library).version().split()[-1].startswith(mlbridge.__version__)
