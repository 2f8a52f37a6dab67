"""Which addresses are refused, in every form in which IPv6 can carry IPv4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whenthen.actions import AddressPolicy
from whenthen.actions.http.address_policy import literal_address, refusal

OPEN = AddressPolicy()
STRICT = AddressPolicy(refuse_private=True)
#: `{0}` and `{1}` are the halves of an IPv4 address, `{2}` to `{5}` its bytes
FORMS = {
    "mapped": "::ffff:{0}:{1}",
    "compatible": "::{0}:{1}",
    "NAT64": "64:ff9b::{0}:{1}",
    "local NAT64, 96": "64:ff9b:1::{0}:{1}",
    "local NAT64, 48": "64:ff9b:1:{0}:{4}:{5}00::",
    "local NAT64, 56": "64:ff9b:1:{2}:{3}:{4}{5}::",
    "local NAT64, 64": "64:ff9b:1:7:{2}:{3}{4}:{5}00::",
    "translated": "::ffff:0:{0}:{1}",
    "6to4": "2002:{0}:{1}::1",
    "ISATAP": "2001:4860::5efe:{0}:{1}",
    "ISATAP, global": "2001:4860::200:5efe:{0}:{1}",
}


def written(form: str, address: str) -> str:
    a, b, c, d = (int(part) for part in address.split("."))
    if form == "local NAT64, 56":  # 8 bits before the gap, 24 behind it
        return f"64:ff9b:1:{a:x}:{b:x}:{c:02x}{d:02x}::"
    return FORMS[form].format(f"{a:02x}{b:02x}", f"{c:02x}{d:02x}", f"{a:02x}", f"{b:02x}", f"{c:02x}", f"{d:02x}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zone", ["", "%eth0", "%25eth0"])
@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "168.63.129.16"])
def test_an_address_inside_ipv6_counts_as_itself(form: str, zone: str, address: str) -> None:
    for policy in (OPEN, STRICT):
        assert refusal(written(form, address) + zone, policy)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "192.168.1.1"])
def test_a_private_address_inside_ipv6_is_private(form: str, address: str) -> None:
    assert refusal(written(form, address), OPEN) is None
    assert refusal(written(form, address), STRICT)


@pytest.mark.parametrize("form", FORMS)
def test_a_public_address_inside_ipv6_is_reached(form: str) -> None:
    assert refusal(written(form, "93.184.215.14"), OPEN) is None
    if "48" not in form and "56" not in form and "64," not in form and not form.startswith("local"):
        assert refusal(written(form, "93.184.215.14"), STRICT) is None


@pytest.mark.parametrize("address", ["fd00:ec2::254", "fd00:ec2::254%eth0", "fe80::1%eth0", "ff02::1%eth0"])
def test_a_zone_changes_nothing(address: str) -> None:
    assert refusal(address, OPEN)


def test_a_private_network_around_a_public_address_stays_private() -> None:
    assert refusal("fd00::5efe:808:808", OPEN) is None
    assert refusal("fd00::5efe:808:808", STRICT)


def test_a_teredo_address_counts_as_its_server_and_its_client() -> None:
    hidden = int.from_bytes(bytes([169, 254, 169, 254])) ^ 0xFFFFFFFF
    assert refusal(f"2001:0:808:808:0:0:{hidden >> 16:x}:{hidden & 0xFFFF:x}", OPEN)
    assert refusal("2001:0:a9fe:a9fe::", OPEN)


@given(st.ip_addresses(v=4).map(str))
def test_no_form_is_judged_milder_than_the_address_itself(address: str) -> None:
    for policy in (OPEN, STRICT):
        if refusal(address, policy):
            assert all(refusal(written(form, address), policy) for form in FORMS)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::ffff:7f00:1", "::ffff:127.0.0.1"),
        ("example.com", None),
        ("1.2.3.4.5", None),
        ("a1", None),
        ("", None),
    ],
)
def test_a_host_that_writes_out_an_address_is_known(host: str, address: str | None) -> None:
    found = literal_address(host)
    assert (found and found.replace("::ffff:7f00:1", "::ffff:127.0.0.1")) == address
