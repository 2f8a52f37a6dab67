"""Which addresses requests of actions may connect to. What counts is the address, never the name that led to it.

IPv4 inside IPv6 counts as the IPv4 address, in every form by which a router or a kernel would deliver it there. Called by
`http_client` for each address that a name resolves to and again for each socket. Meaning: docs/actions.md, "Where requests may go".
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["AddressPolicy", "Resolve", "literal_address", "refusal", "resolve_host"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: host, port -> addresses as text, in the order of preference
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

#: instance metadata services outside the link-local ranges
METADATA = {
    ipaddress.ip_address("fd00:ec2::254"): "AWS",
    ipaddress.ip_address("fd20:ce::254"): "Google Cloud",
    ipaddress.ip_address("100.100.100.200"): "Alibaba Cloud",
    ipaddress.ip_address("168.63.129.16"): "Azure",
    ipaddress.ip_address("192.0.0.192"): "Oracle Cloud",
}
#: IPv4 in the last 32 bits of IPv6, for translators: RFC 6052, RFC 8215, RFC 2765
TRANSLATED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96")))
#: the prefix of RFC 8215, in which an operator chooses the length and so the place of IPv4 (RFC 6052, 2.2)
LOCAL_TRANSLATED = ipaddress.ip_network("64:ff9b:1::/48")
#: interface identifiers of ISATAP, RFC 5214: IPv4 in the last 32 bits, with and without the bit for "globally unique"
ISATAP = frozenset({0x00005EFE, 0x02005EFE})


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Which addresses are refused beside link-local and metadata ones, which always are."""

    refuse_private: bool = False  #: loopback, private networks, carrier-grade NAT, and everything not global


def refusal(address: str, policy: AddressPolicy) -> str | None:
    """Why `address` must not be connected to, or None. A zone (`%eth0`) changes nothing.

    Raises:
        ValueError: it is no address.
    """
    outer = ipaddress.ip_address(address.partition("%")[0])
    standing_for = list(_standing_for(outer))
    for found in (outer, *standing_for, *_tunnelled(outer)):
        if found.is_link_local:
            return "link-local address"
        if found in METADATA:
            return f"metadata service of {METADATA[found]}"
        if found.is_multicast or found == ipaddress.IPv4Address("255.255.255.255"):
            return "multicast or broadcast address"
        if policy.refuse_private and not found.is_global and not (found is outer and standing_for):
            return "private address, and private addresses are refused by the settings"
    return None


def literal_address(host: str) -> str | None:
    """The address that `host` writes out, in its usual form, or None for a name. `2130706433` and `0x7f.1` are addresses
    too: whoever resolves them makes them one."""
    text = host.strip("[]").rstrip(".")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except (OSError, UnicodeError):
        return None


async def resolve_host(host: str, port: int) -> Sequence[str]:
    """Addresses of `host` as the system resolves it, each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


def _standing_for(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that the kernel or a translator may make of this one; it is nothing else besides."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    bits = int(address)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if any(address in net for net in TRANSLATED) or (bits >> 32 == 0 and bits > 1):  # `::a.b.c.d`, RFC 4291
        yield ipaddress.IPv4Address(bits & 0xFFFFFFFF)
    if address in LOCAL_TRANSLATED:
        yield from _within_prefix(bits)


def _tunnelled(address: Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses over which the last part of the way to this one may go."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    if address.teredo is not None:
        yield from address.teredo
    if int(address) >> 32 & 0xFFFFFFFF in ISATAP:
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _within_prefix(bits: int) -> Iterator[ipaddress.IPv4Address]:
    """IPv4 behind a prefix of 48, 56 or 64 bits; bits 64 to 71 and what follows the address are zero."""
    if bits >> 56 & 0xFF:
        return
    without_gap = (bits >> 64 << 56) | (bits & (1 << 56) - 1)  # 120 bits
    for prefix in (48, 56, 64):
        left = 120 - prefix - 32
        if without_gap & (1 << left) - 1 == 0:
            yield ipaddress.IPv4Address(without_gap >> left & 0xFFFFFFFF)
