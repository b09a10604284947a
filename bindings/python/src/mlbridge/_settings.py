"""Turns Python settings into the library's text settings.

The library knows the keys, the bounds and the defaults; this module only brings spelling and values into its form:
keyword names to dotted keys, nested tables to dotted keys, Python values to text.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from typing import Any, Union

__all__ = ["Setting", "flatten", "keyword_key", "text_of"]

Setting = Union[str, int, float, bool, "os.PathLike[str]", enum.Enum, Iterable[Any]]
"""What a setting's value may be; IP addresses and networks are accepted too."""

_UNDOTTED = frozenset({"instance", "mode", "state_dir", "close_timeout_ms"})


def keyword_key(keyword: str) -> str:
    """The setting a keyword argument means: the first underscore is the dot after the table's name.

    `block_action` is `block.action`, `record_hmac_key_file` is `record.hmac_key_file`; the settings outside a table
    (`instance`, `mode`, `state_dir`, `close_timeout_ms`) stay as they are.
    """
    return keyword if keyword in _UNDOTTED else keyword.replace("_", ".", 1)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """The dotted keys and texts of a mapping; a mapping inside it is a table, as in TOML."""
    for key, value in settings.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, dotted + ".")
        else:
            yield dotted, text_of(dotted, value)


def text_of(key: str, value: Any) -> str:
    """A value in the library's notation: lists with commas, `true` and `false`, an enum by its word.

    Raises `TypeError` for what has no such form, for example `None`: leave the setting out instead.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(_item(key, item) for item in value)
    if type(value).__module__ == "ipaddress":
        return str(value)
    raise TypeError(f"{key}: {value!r} has no text form; settings are text, numbers, booleans, paths or lists of them")


def _item(key: str, value: Any) -> str:
    text = text_of(key, value)
    if "," in text:
        raise ValueError(f"{key}: {text!r} has a comma, which separates the values of a list")
    return text
