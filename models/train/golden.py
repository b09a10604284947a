"""The names whose golden scores stand beside a model."""

import random

# Forms that an implementation may get wrong: length, case, bytes outside the usual ones, escapes.
HARD = [
    "a.b",
    "com",
    "EXAMPLE.Org",
    "example.org.",
    "_dmarc.example.org",
    "xn--bcher-kva.example",
    "r4---sn-4g5e6nsz.googlevideo.com",
    "a\\032b.example",
    "\\000\\255.example",
    "4.3.2.1.zen.example.net",
    "b._dns-sd._udp.example.com",
    "0123456789abcdef.example",  # a full row and the next
    "0123456789ab.cd",  # 15 bytes
    "0123456789ab.cde",  # 16 bytes
    "0123456789ab.cdef",  # 17 bytes
    "a" * 63 + ".example",
    ".".join(["0" * 63, "1" * 63, "2" * 63, "3" * 61]),  # 253 bytes
    ".".join("a" * 127),  # the most labels
    ".".join(["\\255" * 63, "\\255" * 63, "\\255" * 63, "\\255" * 61]),
]
LEARNT = 120
MADE_UP = 80


def golden_names(learnt):
    """Hard forms, names the model learnt from, and made-up names of many lengths; always the same."""
    dice = random.Random(2020)
    names = HARD + dice.sample(learnt, LEARNT)
    for _ in range(MADE_UP):
        labels = []
        for _ in range(dice.randint(1, 4)):
            length = dice.choice([3, 8, 12, 20, 40])
            labels.append("".join(dice.choices("abcdefghijklmnopqrstuvwxyz0123456789-", k=length)))
        names.append(".".join(labels + [dice.choice(["com", "net", "org", "xyz", "example"])]))
    return names
