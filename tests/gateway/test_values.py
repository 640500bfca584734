from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.values import Address, Secret, read_address, read_network, read_secret, read_size


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (17, 17),
        ("17", 17),
        ("17 B", 17),
        ("512 MiB", 512 << 20),
        ("2 GB", 2_000_000_000),
        ("2GiB", 2 << 30),
        ("1.5 KiB", 1536),
        ("0.1 KB", 100),
        ("3 tib", 3 << 40),
    ],
)
def test_a_size_is_a_number_of_bytes_or_text_with_a_unit(written: object, size: int) -> None:
    assert read_size(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "-1", -1, True, 1.5, "1 Mbit", "1e9", "1 MiB extra", 1 << 63, "١ MiB"])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        read_size(written)


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [
        ("0.0.0.0:2575", "0.0.0.0", 2575),
        ("[::1]:2575", "::1", 2575),
        ("[::]:0", "::", 0),
        ("localhost:65535", "localhost", 65535),
        ("ward_3.example:1", "ward_3.example", 1),
    ],
)
def test_an_address_is_host_and_port_and_prints_as_it_is_written(written: str, host: str, port: int) -> None:
    address = read_address(written)

    assert address == Address(host, port)
    assert str(address) == written


@pytest.mark.parametrize(
    "written",
    [
        "2575",
        ":2575",
        "0.0.0.0",
        "0.0.0.0:",
        "0.0.0.0:65536",
        "300.0.0.1:80",
        "::1:80",
        "[::1:80",
        "a b:80",
        "h:-1",
        80,
    ],
)
def test_what_is_no_address_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"expected|port"):
        read_address(written)


def test_an_ipv6_address_without_brackets_gets_a_hint() -> None:
    with pytest.raises(ValueError, match="brackets"):
        read_address("fe80::1:2575")


def test_a_network_is_cidr_or_one_address() -> None:
    assert read_network("10.1.0.0/16") == ip_network("10.1.0.0/16")
    assert read_network("10.1.2.3") == ip_network("10.1.2.3/32")
    assert read_network("fd00::/8") == ip_network("fd00::/8")


def test_a_network_with_bits_beside_its_mask_gets_a_hint() -> None:
    with pytest.raises(ValueError, match=r"did you mean '10\.1\.0\.0/16'"):
        read_network("10.1.2.3/16")


@pytest.mark.parametrize("written", ["10.1", "10.1.0.0/33", "ward", 10])
def test_what_is_no_network_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="expected a network"):
        read_network(written)


def test_a_secret_is_named_in_one_of_three_ways() -> None:
    assert read_secret({"credential": "broker"}) == Secret(credential="broker")
    assert read_secret({"env": "BROKER_PASSWORD"}) == Secret(env="BROKER_PASSWORD")
    assert read_secret({"file": "/run/secret"}) == Secret(file=Path("/run/secret"))


@pytest.mark.parametrize(
    "written",
    [
        "hunter2",
        {},
        {"env": "hunter2", "file": "hunter2"},
        {"envi": "hunter2"},
        {"env": 3},
        {"env": ""},
        {"credential": "../hunter2"},
        {"credential": ".."},
    ],
)
def test_a_wrong_secret_is_refused_and_never_shown(written: object) -> None:
    with pytest.raises(ValueError, match=r"secret|exactly one|credential") as raised:
        read_secret(written)

    assert "hunter2" not in str(raised.value)


@given(
    st.text()
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.lists(st.integers())
    | st.dictionaries(st.text(), st.text())
)
def test_no_value_raises_anything_but_valueerror(raw: object) -> None:
    for read in (read_size, read_address, read_network, read_secret):
        try:
            read(raw)
        except ValueError:
            continue
