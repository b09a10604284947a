"""The encoder codepoints-16x16 in Python, for training; the library's own is src/model/codepoints.rs.

The golden scores hold both to the same result.
"""

import re

import numpy


def name_bytes(name):
    """The bytes of a name in master-file form: escapes read, ASCII letters lowered, no final dot."""
    escape = re.compile(rb"\\(\d{3}|.)", re.DOTALL)

    def plain(match):
        text = match.group(1)
        return bytes([int(text)]) if len(text) == 3 else text

    dotted = escape.sub(plain, name.encode("ascii"))
    return dotted.lower().removesuffix(b".")


def codepoints_16x16(name):
    """The bytes as numbers, zeros after them, as one channel of 16 rows of 16."""
    image = numpy.zeros(256, dtype=numpy.float32)
    dotted = name_bytes(name)
    image[: len(dotted)] = list(dotted)
    return image.reshape(1, 16, 16)
