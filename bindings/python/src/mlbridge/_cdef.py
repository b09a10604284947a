"""Reads `mlbridge.cdef`, the C header without preprocessor lines, into ctypes declarations.

The parser knows the few forms the header uses (opaque and plain structs, enums, aliases of integers, prototypes) and
refuses everything else with the line number, so that a header it does not understand is an error when the library is
loaded and never a wrongly typed call. It is no general C parser: no macros, unions, bit fields or function pointers.
"""

from __future__ import annotations

import ctypes
import re
from typing import Any, NamedTuple

__all__ = ["Declarations", "Prototype", "parse"]

_SCALARS: dict[str, Any] = {
    "char": ctypes.c_char,
    "int": ctypes.c_int,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
    "bool": ctypes.c_bool,
    "size_t": ctypes.c_size_t,
    "int8_t": ctypes.c_int8,
    "int16_t": ctypes.c_int16,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint8_t": ctypes.c_uint8,
    "uint16_t": ctypes.c_uint16,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
}

_TOKEN = re.compile(
    r"\s+|/\*.*?\*/|//[^\n]*|(?P<token>[A-Za-z_]\w*|0[xX][0-9a-fA-F]+|\d+|[{}()\[\];,*=-])",
    re.DOTALL,
)


class Prototype(NamedTuple):
    """What a function takes and gives, as ctypes types; `restype` is `None` for `void`."""

    restype: Any
    argtypes: list[Any]


class Declarations(NamedTuple):
    """Everything a header declares, by its C name."""

    structs: dict[str, type[ctypes.Structure]]
    opaque: set[str]
    constants: dict[str, int]
    functions: dict[str, Prototype]


class _Token(NamedTuple):
    text: str
    line: int


class _Type(NamedTuple):
    """A base type and its pointer levels, outermost `*` last; `const` says whether the base is const."""

    base: str
    const: bool
    pointers: int


def parse(text: str) -> Declarations:
    """Parses a whole `.cdef`.

    Raises `ValueError`, with the line, where the text has a form the header is not supposed to have.
    """
    return _Parser(_tokens(text)).run()


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        line = text.count("\n", 0, position) + 1
        if match is None:
            raise ValueError(f"line {line}: unexpected character {text[position]!r}")
        if match["token"]:
            found.append(_Token(match["token"], line))
        position = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._aliases: dict[str, Any] = {}
        self._found = Declarations({}, set(), {}, {})

    def run(self) -> Declarations:
        while self._peek() is not None:
            self._declaration()
        return self._found

    def _declaration(self) -> None:
        if self._accept("typedef"):
            self._typedef()
            return
        if self._peek() == "enum" and "{" in (self._peek(1), self._peek(2)):
            self._take()
            tag = None if self._peek() == "{" else self._identifier()
            self._enum_body(tag)
            self._expect(";")
            return
        if self._peek() == "struct" and self._peek(2) == "{":
            self._take()
            self._struct_body(self._identifier())
            self._expect(";")
            return
        self._prototype()

    def _typedef(self) -> None:
        if self._accept("enum"):
            tag = None if self._peek() == "{" else self._identifier()
            if self._peek() == "{":
                self._enum_body(tag)
            self._aliases[self._identifier()] = ctypes.c_int
        elif self._accept("struct"):
            tag = None if self._peek() == "{" else self._identifier()
            if self._peek() == "{":
                self._struct_body(self._name_after_body() if tag is None else tag)
            elif tag is not None and tag not in self._found.structs:
                self._found.opaque.add(tag)
            alias = self._identifier()
            if tag is not None and alias != tag:
                raise self._error(f"struct {tag} is given another name, {alias}")
        else:
            kind = self._type()
            if kind.pointers:
                raise self._error("an alias of a pointer type")
            self._aliases[self._identifier()] = self._scalar(kind)
        self._expect(";")

    def _name_after_body(self) -> str:
        depth = 0
        for token, following in zip(self._tokens[self._next :], self._tokens[self._next + 1 :]):
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            if depth == 0:
                return following.text
        raise self._error("a struct without an end")

    def _enum_body(self, tag: str | None) -> None:
        if tag is not None:
            self._aliases[tag] = ctypes.c_int
        self._expect("{")
        value = 0
        while not self._accept("}"):
            name = self._identifier()
            if self._accept("="):
                sign = -1 if self._accept("-") else 1
                value = sign * self._number()
            self._found.constants[name] = value
            value += 1
            if not self._accept(","):
                self._expect("}")
                break

    def _struct_body(self, name: str) -> None:
        fields: list[tuple[str, Any]] = []
        self._expect("{")
        while not self._accept("}"):
            kind = self._type()
            field = self._identifier()
            ctype = self._scalar(kind) if kind.pointers == 0 else ctypes.c_void_p
            if self._accept("["):
                ctype = ctype * self._number()
                self._expect("]")
            self._expect(";")
            fields.append((field, ctype))
        self._found.opaque.discard(name)
        self._found.structs[name] = type(name, (ctypes.Structure,), {"_fields_": fields})

    def _prototype(self) -> None:
        kind = self._type()
        restype = self._result(kind)
        name = self._identifier()
        self._expect("(")
        argtypes: list[Any] = []
        if self._peek() == "void" and self._peek(1) == ")":
            self._take()
        elif self._peek() == ")":
            raise self._error(f"{name} has no parameter list; C99 wants (void)")
        while not self._accept(")"):
            if argtypes:
                self._expect(",")
            parameter = self._type()
            self._identifier()
            argtypes.append(self._parameter(parameter))
        self._expect(";")
        self._found.functions[name] = Prototype(restype, argtypes)

    def _type(self) -> _Type:
        const = self._accept("const")
        self._accept("struct") or self._accept("enum")
        base = self._identifier()
        const = self._accept("const") or const
        pointers = 0
        while self._accept("*"):
            pointers += 1
            self._accept("const")
        return _Type(base, const, pointers)

    def _scalar(self, kind: _Type) -> Any:
        known = _SCALARS.get(kind.base) or self._aliases.get(kind.base) or self._found.structs.get(kind.base)
        if known is None:
            raise self._error(f"unknown type {kind.base}")
        return known

    def _result(self, kind: _Type) -> Any:
        if kind.base == "void" and kind.pointers == 0:
            return None
        if kind.base == "char" and kind.pointers == 1:
            return ctypes.c_char_p
        if kind.pointers == 0:
            return self._scalar(kind)
        raise self._error("a function that gives a pointer to something other than text")

    def _parameter(self, kind: _Type) -> Any:
        """Read-only bytes are taken from `bytes`; every other pointer is typed, handles are plain addresses."""
        if kind.pointers == 0:
            return self._scalar(kind)
        if kind.base in self._found.opaque:
            return _pointer(ctypes.c_void_p, kind.pointers - 1)
        if kind.base in ("char", "uint8_t") and kind.const:
            return _pointer(ctypes.c_char_p, kind.pointers - 1)
        if kind.base == "void":
            return _pointer(ctypes.c_void_p, kind.pointers - 1)
        return _pointer(self._scalar(kind), kind.pointers)

    def _peek(self, ahead: int = 0) -> str | None:
        index = self._next + ahead
        return self._tokens[index].text if index < len(self._tokens) else None

    def _take(self) -> str:
        text = self._peek()
        if text is None:
            raise self._error("the text ends inside a declaration")
        self._next += 1
        return text

    def _accept(self, text: str) -> bool:
        if self._peek() != text:
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        found = self._take()
        if found != text:
            raise self._error(f"expected {text!r}, found {found!r}")

    def _identifier(self) -> str:
        text = self._take()
        if not re.fullmatch(r"[A-Za-z_]\w*", text):
            raise self._error(f"expected a name, found {text!r}")
        return text

    def _number(self) -> int:
        text = self._take()
        if not text[0].isdigit():
            raise self._error(f"expected a number, found {text!r}")
        return int(text, 0)

    def _error(self, reason: str) -> ValueError:
        index = min(max(self._next - 1, 0), len(self._tokens) - 1)
        line = self._tokens[index].line if self._tokens else 1
        return ValueError(f"line {line}: {reason}")


def _pointer(ctype: Any, levels: int) -> Any:
    for _ in range(levels):
        ctype = ctypes.POINTER(ctype)
    return ctype
