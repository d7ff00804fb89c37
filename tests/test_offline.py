"""Without a network nothing is reached: what the tests of replays stand on."""

import subprocess
import sys

import pytest
from offline import without_network

REACH = """
import socket, sys
with socket.socket() as there:
    there.settimeout(5)
    sys.exit(there.connect_ex((sys.argv[1], 80)))
"""


@pytest.mark.parametrize(
    ("loopback", "address", "error"),
    [
        (False, "192.0.2.1", "ENETUNREACH"),
        (False, "127.0.0.1", "ENETUNREACH"),
        (True, "192.0.2.1", "ENETUNREACH"),
        (True, "127.0.0.1", "ECONNREFUSED"),
    ],
)
def test_nothing_is_reached(*, loopback: bool, address: str, error: str) -> None:
    import errno

    command = without_network([sys.executable, "-c", REACH, address], loopback=loopback)
    assert errno.errorcode[subprocess.run(command, check=False).returncode] == error  # noqa: S603 - our own Python


def test_no_interface_is_there_but_the_machine_itself_and_it_is_down() -> None:
    command = without_network(["cat", "/proc/net/dev", "/proc/net/route"])
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own words
    assert [line.split(":")[0].strip() for line in shown.splitlines() if ":" in line] == ["lo"]
