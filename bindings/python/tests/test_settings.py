"""Settings: spelling, values, and what the library says about wrong ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlbridge
from mlbridge._settings import flatten, keyword_key, text_of

OpenEngine = Callable[..., mlbridge.Engine]


@pytest.mark.parametrize(
    ("keyword", "key"),
    [
        ("instance", "instance"),
        ("mode", "mode"),
        ("state_dir", "state_dir"),
        ("close_timeout_ms", "close_timeout_ms"),
        ("block_action", "block.action"),
        ("breaker_max_block_ratio", "breaker.max_block_ratio"),
        ("record_hmac_key_file", "record.hmac_key_file"),
        ("elasticsearch_api_key_file", "elasticsearch.api_key_file"),
    ],
)
def test_a_keyword_s_first_underscore_is_the_dot(keyword: str, key: str) -> None:
    assert keyword_key(keyword) == key


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (0.0001, "0.0001"),
        (1e-05, "1e-05"),
        (Path("/a/b"), "/a/b"),
        (mlbridge.Action.NXDOMAIN, "nxdomain"),
        (ipaddress.ip_address("192.0.2.1"), "192.0.2.1"),
        (ipaddress.ip_network("2001:db8::/32"), "2001:db8::/32"),
        (["a", Path("b")], "a,b"),
        ((), ""),
    ],
)
def test_values_become_the_library_s_text(value: Any, text: str) -> None:
    assert text_of("key", value) == text


def test_values_without_a_text_form_are_refused() -> None:
    with pytest.raises(TypeError, match=r"block\.ttl: None has no text form"):
        text_of("block.ttl", None)
    with pytest.raises(ValueError, match=r"lists\.block: 'a,b' has a comma"):
        text_of("lists.block", ["a,b"])


def test_tables_become_dotted_keys() -> None:
    nested = {
        "mode": "observe",
        "groups": {"kids": {"cidr": ["192.0.2.0/24"], "block": {"action": "refused"}}},
    }
    assert dict(flatten(nested)) == {
        "mode": "observe",
        "groups.kids.cidr": "192.0.2.0/24",
        "groups.kids.block.action": "refused",
    }


WRONG = [
    ("instance", "with blanks"),
    ("mode", "sometimes"),
    ("store.max_mib", "7"),
    ("store.max_days", "0"),
    ("store.flush_ms", "-1"),
    ("model.engine", "onnx"),
    ("threshold.vet", "1.5"),
    ("threshold.block", "high"),
    ("block.action", "explode"),
    ("block.ttl", "one"),
    ("sinkhole.ipv4", "::1"),
    ("sinkhole.ipv6", "192.0.2.1"),
    ("honeypot.ipv4", "honeypot"),
    ("honeypot.ipv6", "honeypot"),
    ("vet.action", "ask"),
    ("groups.kids.cidr", "192.0.2.0/99"),
    ("groups.kids.mode", "sometimes"),
    ("groups.kids.threshold.vet", "2"),
    ("groups.kids.threshold.block", "2"),
    ("groups.kids.block.action", "explode"),
    ("breaker.max_block_ratio", "2"),
    ("breaker.window_s", "0"),
    ("breaker.min_queries", "0"),
    ("cache.entries", "-1"),
    ("record.allow", "some"),
    ("record.coalesce_s", "9999"),
    ("record.client", "half"),
    ("elasticsearch.setup", "perhaps"),
    ("elasticsearch.overrides", "perhaps"),
    ("elasticsearch.poll_s", "0"),
    ("alert.webhook_url", "http://127.0.0.1/"),
    ("close_timeout_ms", "never"),
    ("queue.events", "1"),
]


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[key for key, _ in WRONG])
def test_a_wrong_value_is_named_with_its_key(engine: OpenEngine, key: str, value: str) -> None:
    with pytest.raises(mlbridge.ConfigError) as raised:
        engine({key: value})
    text = str(raised.value)
    assert key in text and value in text
    assert raised.value.status == 3
    assert not text.endswith(".")


@pytest.mark.parametrize("key", ["nonsense", "block.acton", "lists.blok", "groups.kids.nonsense"])
def test_an_unknown_key_is_named(engine: OpenEngine, key: str) -> None:
    with pytest.raises(mlbridge.ConfigError, match=key):
        engine({key: "x"})


def test_an_unknown_keyword_is_named_as_a_key(engine: OpenEngine) -> None:
    with pytest.raises(mlbridge.ConfigError, match=r"block\.acton"):
        engine(block_acton="nxdomain")


def test_settings_that_contradict_each_other_are_named(engine: OpenEngine) -> None:
    with pytest.raises(mlbridge.ConfigError, match=r"block\.action.*sinkhole\.ipv4"):
        engine(block_action="sinkhole")
    with pytest.raises(mlbridge.ConfigError, match=r"threshold"):
        engine(threshold_vet=0.9, threshold_block=0.5)
    with pytest.raises(mlbridge.ConfigError, match=r"record\.hmac_key_file"):
        engine(record_client="hmac")


def test_files_that_are_not_there_are_named(engine: OpenEngine, tmp_path: Path) -> None:
    for settings in ({"lists.block": tmp_path / "none.txt"}, {"model.path": tmp_path / "none"}):
        with pytest.raises(mlbridge.Error, match=r"none"):
            engine(settings)
    with pytest.raises(mlbridge.StoreError, match=r"none\.toml"):
        engine(config=tmp_path / "none.toml")


def test_a_settings_file_others_may_write_to_is_refused(engine: OpenEngine, tmp_path: Path) -> None:
    config = tmp_path / "mlbridge.toml"
    config.write_text("mode = 'observe'\n")
    config.chmod(0o666)
    with pytest.raises(mlbridge.Error, match=r"mlbridge\.toml"):
        engine(config=config)


def test_a_zero_byte_is_refused_before_c_sees_it(engine: OpenEngine) -> None:
    with pytest.raises(ValueError, match="zero byte"):
        engine({"mode": "enforce\0observe"})
