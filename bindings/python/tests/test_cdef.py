"""The parser of the header, and what the package takes from the real one."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

import mlbridge
from mlbridge._cdef import parse
from mlbridge._errors import _BY_STATUS

ROOT = Path(__file__).resolve().parents[3]

HEADER = """
/** Text. */
typedef enum state { FINE = 0, BAD, WORSE = 7, } state; // after
typedef uint8_t small;
typedef struct handle handle;
typedef struct pair { float a; uint8_t b[4]; small c; const char *d; } pair;
enum { ALONE = 0x10 };
enum tagged { IN_TAGGED };
enum state open_it(struct handle **out, const struct pair *p, enum tagged how);
const char *text(int number);
state fill(const handle *h, handle **out, const uint8_t *bytes, size_t len, pair *p,
           const char *const *names, const size_t *lens, float *scores, char *buf);
void nothing(void);
"""


def test_every_form_of_the_header_is_read() -> None:
    declared = parse(HEADER)
    assert declared.opaque == {"handle"}
    assert declared.constants == {"FINE": 0, "BAD": 1, "WORSE": 7, "ALONE": 16, "IN_TAGGED": 0}
    pair = declared.structs["pair"]
    assert ctypes.sizeof(pair) == 24
    assert [getattr(pair, field).offset for field in ("a", "b", "c", "d")] == [0, 4, 8, 16]
    assert declared.functions["text"] == (ctypes.c_char_p, [ctypes.c_int])
    assert declared.functions["open_it"] == (
        ctypes.c_int,
        [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(pair), ctypes.c_int],
    )
    assert declared.functions["nothing"] == (None, [])
    assert declared.functions["fill"] == (
        ctypes.c_int,
        [
            ctypes.c_void_p,
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.POINTER(pair),
            ctypes.POINTER(ctypes.c_char_p),
            ctypes.POINTER(ctypes.c_size_t),
            ctypes.POINTER(ctypes.c_float),
            ctypes.POINTER(ctypes.c_char),
        ],
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#define A 1", "line 1: unexpected character '#'"),
        ("\nint f(strange x);", "line 2: unknown type strange"),
        ("int f(int);", "line 1: expected a name"),
        ("int f();", "line 1: f has no parameter list"),
        ("int *f(void);", "line 1: a function that gives a pointer"),
        ("typedef struct a b;", "line 1: struct a is given another name"),
        ("typedef struct s { int a : 3; } s;", "line 1: unexpected character ':'"),
        ("typedef int (*callback)(int x);", "line 1: expected a name"),
        ("typedef char *string;", "line 1: an alias of a pointer"),
        ("typedef union u { int a; } u;", "line 1: unknown type union"),
        ("int f(int x)", "line 1: the text ends"),
        ("unsigned int f(void);", "line 1: unknown type unsigned"),
    ],
)
def test_everything_else_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse(text)


def test_the_verdict_has_the_layout_of_the_abi(library: Path) -> None:
    verdict = mlbridge.load(library).verdict_type
    offsets = {name: getattr(verdict, name).offset for name, _ in verdict._fields_}
    assert ctypes.sizeof(verdict) == 64
    assert offsets == {
        "score": 0,
        "label": 4,
        "decision": 5,
        "action": 6,
        "source": 7,
        "flags": 8,
        "ttl": 12,
        "sinkhole4": 16,
        "sinkhole6": 20,
        "fpr": 36,
        "model": 40,
        "reserved": 48,
    }


def test_the_enums_are_those_of_the_header(library: Path) -> None:
    constants = mlbridge.load(library).declared.constants
    words: dict[str, int] = {
        f"MLB_{word.name}": word for enum in (mlbridge.Label, mlbridge.Decision, mlbridge.Action) for word in enum
    }
    words |= {f"MLB_SOURCE_{word.name}": word for word in mlbridge.Source}
    words |= {f"MLB_FLAG_{flag.name}": flag for flag in mlbridge.Flag}
    statuses = {name: value for name, value in constants.items() if name == "MLB_OK" or name.startswith("MLB_E_")}
    assert constants == {name: int(word) for name, word in words.items()} | statuses
    assert set(statuses.values()) == {0, *_BY_STATUS}


def test_the_abi_version_is_the_header_s() -> None:
    header = (ROOT / "include/mlbridge.h").read_text(encoding="utf-8")
    assert re.findall(r"^#define MLB_ABI_VERSION (\d+)$", header, re.MULTILINE) == [str(mlbridge.ABI_VERSION)]
