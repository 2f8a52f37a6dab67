"""Addresses and ranges of networks: `ip("10.0.0.1")`, `cidr("10.0.0.0/8")`, and what is asked of them.

Called through `function_table`. An address in a zone (`fe80::1%eth0`) and one of IPv4 written within IPv6 (`::ffff:10.0.0.1`) are
no addresses here; wholly in hexadecimal (`::ffff:a00:1`) the latter is the address of IPv4. Meaning: Kubernetes' CEL libraries for
IP addresses and CIDR ranges, cel-go's network extension, and where these are silent or differ the published cases of cel-spec.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from whenthen.conditions.runtime.cel_values import Cidr, EvaluationFault, no_overload
from whenthen.conditions.runtime.condition_errors import Reason, describe
from whenthen.conditions.runtime.cost import Budget, charge

__all__ = [
    "TESTS",
    "contains_cidr",
    "contains_ip",
    "family",
    "ip_of",
    "is_canonical",
    "is_cidr",
    "is_ip",
    "is_mask",
    "masked",
    "prefix_length",
    "to_cidr",
    "to_ip",
]

STEPS_PER_ADDRESS = 80  #: of reading a text of at most `MAX_CHARS`
STEPS_PER_TEST = 40  #: of a question about an address or a range that was read
MAX_CHARS = 64  #: more than the longest address with a prefix has

_LENGTH = re.compile("0|[1-9][0-9]{0,2}")
_BROADCAST = IPv4Address("255.255.255.255")

Address = IPv4Address | IPv6Address


def _is_address(value: Any) -> bool:
    return isinstance(value, IPv4Address | IPv6Address)


def _text(function: str, value: Any) -> str:
    if not isinstance(value, str):
        raise no_overload(function, value)
    return value


def _cidr(function: str, value: Any) -> Cidr:
    if not isinstance(value, Cidr):
        raise no_overload(function, value)
    return value


def _address(text: str, budget: Budget | None) -> Address:
    charge(STEPS_PER_ADDRESS, budget)
    return _read_address(text, text)


def _read_address(text: str, whole: str) -> Address:
    try:
        if len(text) > MAX_CHARS:
            raise AddressValueError("it is too long")
        address: Address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        raise _no_address(whole) from None
    if isinstance(address, IPv4Address):
        return address
    if address.scope_id is not None:
        raise _no_address(whole, ": an address has no zone here")
    if address.ipv4_mapped is not None:
        if "." in text or text is not whole:
            raise _no_address(whole, ": write the IPv4 address itself")
        return address.ipv4_mapped
    return address


def _no_address(text: str, why: str = "") -> EvaluationFault:
    what = "range, such as 10.0.0.0/8 or 2001:db8::/32" if "/" in text else "address, such as 10.0.0.1 or 2001:db8::1"
    return EvaluationFault(Reason.BAD_CONVERSION, f"{describe(text)} is no IP {what}{why}", text)


def _range(text: str, budget: Budget | None) -> Cidr:
    charge(STEPS_PER_ADDRESS, budget)
    address, slash, length = text.rpartition("/") if len(text) <= MAX_CHARS else ("", "", "")
    if not slash or not _LENGTH.fullmatch(length):
        raise EvaluationFault(
            Reason.BAD_CONVERSION, f"{describe(text)} is no IP range, such as 10.0.0.0/8 or 2001:db8::/32", text
        )
    found = Cidr(_read_address(address, text), int(length))
    if found.bits > found.address.max_prefixlen:
        raise _no_address(text, f": at most /{found.address.max_prefixlen} is possible")
    return found


def _holds(read: Callable[[str, Budget | None], object], text: str, budget: Budget | None) -> bool:
    try:
        read(text, budget)
    except EvaluationFault as fault:
        if fault.reason is Reason.BUDGET:
            raise
        return False
    return True


# -- addresses


def to_ip(value: Any, budget: Budget | None) -> Address:
    return _address(_text("ip()", value), budget)


def is_ip(value: Any, budget: Budget | None) -> bool:
    return _holds(_address, _text("isIP()", value), budget)


def is_canonical(value: Any, budget: Budget | None) -> bool:
    """Whether a text writes an address as RFC 5952 has it."""
    text = _text("ip.isCanonical()", value)
    return str(_address(text, budget)) == text


def family(value: Any) -> int:
    if not _is_address(value):
        raise no_overload("family()", value)
    return int(value.version)


def _of_address(name: str, test: Callable[[Any], bool]) -> Callable[[Any, Budget | None], bool]:
    def call(value: Any, budget: Budget | None) -> bool:
        if not _is_address(value):
            raise no_overload(f"{name}()", value)
        charge(STEPS_PER_TEST, budget)
        return test(value)

    return call


def _is_global_unicast(address: Address) -> bool:
    """Whatever is none of the others; private addresses are global unicast."""
    others = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return not others and address != _BROADCAST


def _is_link_local_multicast(address: Address) -> bool:
    if address.version == 4:
        return int(address) >> 8 == 0xE00000  # 224.0.0.0/24
    return int(address) >> 112 & 0xFF0F == 0xFF02


TESTS: dict[str, Callable[[Any, Budget | None], bool]] = {
    name: _of_address(name, test)
    for name, test in (
        ("isUnspecified", lambda address: address.is_unspecified),
        ("isLoopback", lambda address: address.is_loopback),
        ("isGlobalUnicast", _is_global_unicast),
        ("isLinkLocalMulticast", _is_link_local_multicast),
        ("isLinkLocalUnicast", lambda address: address.is_link_local),
    )
}

# -- ranges


def ip_of(network: Any, _budget: Budget | None) -> Address:
    """The address that a range is written with."""
    return _cidr("ip()", network).address


def to_cidr(value: Any, budget: Budget | None) -> Cidr:
    return _range(_text("cidr()", value), budget)


def is_cidr(value: Any, budget: Budget | None) -> bool:
    return _holds(_range, _text("isCIDR()", value), budget)


def _within(network: Cidr, address: Address) -> bool:
    rest = network.address.max_prefixlen - network.bits
    return network.address.version == address.version and int(network.address) >> rest == int(address) >> rest


def contains_ip(network: Any, address: Any, budget: Budget | None) -> bool:
    if not isinstance(network, Cidr) or not (isinstance(address, str) or _is_address(address)):
        raise no_overload("containsIP()", network, address)
    return _within(network, _address(address, budget) if isinstance(address, str) else address)


def contains_cidr(network: Any, other: Any, budget: Budget | None) -> bool:
    if not isinstance(network, Cidr) or not isinstance(other, str | Cidr):
        raise no_overload("containsCIDR()", network, other)
    inner = _range(other, budget) if isinstance(other, str) else other
    return network.bits <= inner.bits and _within(network, inner.address)


def _mask(name: str, network: Any, budget: Budget | None) -> Cidr:
    written = _cidr(f"{name}()", network)
    charge(STEPS_PER_TEST, budget)
    rest = written.address.max_prefixlen - written.bits
    return Cidr(type(written.address)(int(written.address) >> rest << rest), written.bits)


def masked(network: Any, budget: Budget | None) -> Cidr:
    """The range written with its first address."""
    return _mask("masked", network, budget)


def is_mask(network: Any, budget: Budget | None) -> bool:
    """Whether the range is written with its first address."""
    return bool(_mask("isMask", network, budget) == network)


def prefix_length(network: Any) -> int:
    return _cidr("prefixLength()", network).bits
