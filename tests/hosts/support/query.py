"""Questions to a server, and its answers in the terms of the tests."""

from __future__ import annotations

from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Answer:
    """One reply: `records` are the texts of the answer section, `soa` is there if the authority section has one."""

    rcode: str
    records: list[str]
    ttl: int | None
    soa: str | None
    authenticated: bool


def ask(
    port: int,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    source: str = "127.0.0.1",
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    """Asks 127.0.0.1 as dig does: recursion desired, AD set, EDNS."""
    query = dns.message.make_query(name, kind, use_edns=0)
    query.flags |= dns.flags.AD
    send = dns.query.tcp if tcp else dns.query.udp
    reply = send(query, "127.0.0.1", timeout=timeout, port=port, source=source)
    assert reply.id == query.id
    authority = [rrset for rrset in reply.authority if rrset.rdtype == dns.rdatatype.SOA]
    return Answer(
        rcode=dns.rcode.to_text(reply.rcode()),
        records=sorted(record.to_text() for rrset in reply.answer for record in rrset),
        ttl=min((rrset.ttl for rrset in reply.answer), default=None),
        soa=authority[0].to_text() if authority else None,
        authenticated=bool(reply.flags & dns.flags.AD),
    )


def answers(port: int, name: str = "ready.example") -> bool:
    """Whether the server answers at all."""
    try:
        return ask(port, name, timeout=0.3).rcode == "NOERROR"
    except (dns.exception.DNSException, OSError):
        return False
