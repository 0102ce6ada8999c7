"""At a terminal (a real one: a pty and a process of its own): questions, hidden answers, Ctrl-C."""

import os
import pty
import select
import signal
import sys
from collections.abc import Iterator
from subprocess import Popen

import pytest

from services.runtime.settings import Settings, child_environment
from services.sandbox.embedded import free_port
from tests.cli.conftest import KEYS, Vendor, given, looked
from tests.cli.test_tenants import SETUP, nothing_stored, secret

SILENCE_S = 20.0
INTERRUPTS_MAX = 10


class Terminal:
    """`avesa` at a terminal. `shown` is everything the person has seen so far."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        self.process = Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, text: str) -> str:
        """What was shown since the last time, up to `text`; at the end of everything, whatever there was."""
        start = len(self.shown)
        while text not in self.shown[start:]:
            ready, _, _ = select.select([self._ours], [], [], SILENCE_S)
            assert ready, f"{text!r} did not appear after {self.shown[start:]!r}"
            try:
                piece = os.read(self._ours, 4096).decode()
            except OSError:  # Linux: the other end is closed
                piece = ""
            if not piece:
                break
            self.shown += piece
        return self.shown[start:]

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, again while nothing follows: one that falls between a prompt and its read is only noted by Python."""
        for _ in range(INTERRUPTS_MAX):
            self.process.send_signal(signal.SIGINT)
            if select.select([self._ours], [], [], 1.0)[0]:
                return

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> int:
        """Its exit code, once it has ended by itself."""
        self.read_until("\0")
        os.close(self._ours)
        return self.process.wait(SILENCE_S)


@pytest.fixture
def terminal(aws: Settings, vendor: Vendor) -> Iterator[Terminal]:
    assert aws.endpoint_url is not None
    started = Terminal(*SETUP, environment=environment_of(aws.endpoint_url) | {"ENVIRONMENT": aws.environment})
    yield started
    started.end()


def environment_of(url: str) -> dict[str, str]:
    """What a person's shell holds; none of the variables of this test process."""
    return child_environment(AWS_ENDPOINT_URL=url, PYTHONPATH=os.pathsep.join(sys.path), TERM="dumb")


def test_credentials_are_asked_for_with_their_hints_and_secret_ones_are_hidden(
    terminal: Terminal, aws: Settings, vendor: Vendor
) -> None:
    terminal.read_until("API address: ")
    assert "such as https://api-na.myconnectwise.net" in terminal.shown
    terminal.type(f"{vendor.url}\n")
    for question, answer in (
        ("Company ID: ", KEYS.company_id),
        ("Public key: ", KEYS.public_key),
        ("Private key: ", KEYS.private_key),
        ("Client ID: ", f"  {KEYS.client_id} "),  # as pasted
    ):
        terminal.read_until(question)
        terminal.type(f"{answer}\n")
    assert terminal.close() == 0
    assert KEYS.public_key in terminal.shown
    assert KEYS.private_key not in terminal.shown
    assert KEYS.client_id not in terminal.shown
    assert "connectwise is connected to the new tenant acme-msp (Acme MSP)." in terminal.shown
    assert looked(secret(aws)) == given(vendor.url)


def test_ctrl_c_while_waiting_for_aws_ends_it_at_once() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    terminal = Terminal("services", environment=environment_of(url))
    try:
        terminal.read_until(f"waiting for {url}, 30 s at most")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.close() == 130
        assert terminal.shown.rstrip().endswith("interrupted.")
    finally:
        terminal.end()


def test_ctrl_c_at_a_question_ends_it_and_says_that_nothing_was_stored(terminal: Terminal, aws: Settings) -> None:
    terminal.read_until("API address: ")
    terminal.interrupt()
    assert terminal.close() == 130
    assert terminal.shown.rstrip().endswith("interrupted. Nothing was stored.")
    assert nothing_stored(aws)
