"""Commands over LSL: what is one, what is refused, and that bytes from outside cannot do harm."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from myoloop.errors import MyoloopError
from myoloop.streams.commands import (
    COMMANDS,
    Command,
    CommandInbox,
    CommandSender,
    Condition,
    Delay,
    Pause,
    Push,
    Refusal,
    Reset,
    Resume,
    Rotate,
    SwitchDecoder,
    Target,
    parse_command,
)  # fmt: skip

GOOD: list[Command] = [
    Pause(), Resume(), Reset(seed=3), Reset(), Target(values=(1, 0, 0, 0.5, 1), duration_s=2.0),
    Push(finger="index", force_n=(0, 0, 2.5)), Condition(name="fatigue", strength=0.5), Rotate(degrees=15.0),
    Delay(delay_ms=120), SwitchDecoder(name="none"),
]  # fmt: skip


@pytest.mark.parametrize("command", GOOD, ids=lambda c: c.command)
def test_every_command_survives_the_wire(command: Command) -> None:
    assert parse_command(command.model_dump_json()) == command
    assert command.command in COMMANDS


def test_the_documented_example_is_a_command() -> None:
    assert parse_command('{"command": "push", "finger": "index", "force_n": [0, 0, 2], "duration_s": 0.3}') == Push(
        finger="index", force_n=(0, 0, 2)
    )


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ("", "json", "not JSON"),
        ("pause", "json", "not JSON"),
        ("[]", "command", "object"),
        ("{}", "command", "pause, resume"),
        ('{"command": "paus"}', "command", "pause, resume"),
        ('{"command": "pause", "now": true}', "value", "now"),
        ('{"command": "target", "values": [1, 0, 0, 0]}', "value", "values"),
        ('{"command": "target", "values": [1, 0, 0, 0, 2]}', "value", "values.4"),
        ('{"command": "target", "values": [1, 0, 0, 0, 1], "duration_s": 0}', "value", "duration_s"),
        ('{"command": "target", "values": [1, 0, 0, 0, 1], "duration_s": "5"}', "value", "duration_s"),
        ('{"command": "push", "finger": "index", "force_n": [NaN, 0, 0]}', "value", "force_n.0"),
        ('{"command": "push", "finger": "index", "force_n": [1e400, 0, 0]}', "value", "force_n.0"),
        ('{"command": "delay", "delay_ms": -1}', "value", "delay_ms"),
        ('{"command": "reset", "seed": -1}', "value", "seed"),
        ("[" * 900, "json", "not JSON"),
        ('{"command": "pause"}' + " " * 1000, "length", "1020"),
    ],
)
def test_what_is_no_command_is_refused_with_a_reason(text: str, kind: str, words: str) -> None:
    for sent in (text, text.encode()):
        refusal = parse_command(sent)
        assert isinstance(refusal, Refusal) and refusal.kind == kind and words in refusal.text


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
fields = st.sampled_from(
    ["values", "duration_s", "finger", "force_n", "name", "strength", "degrees", "delay_ms", "seed", "odd"]
)
almost = st.builds(
    lambda command, rest: json.dumps({"command": command, **rest}),
    st.sampled_from(COMMANDS) | st.text(max_size=8),
    st.dictionaries(fields, values, max_size=4),
)


@given(st.binary(max_size=1200) | st.text(max_size=1200) | almost)
@example("\ud800")
@example(b"\xff\xfe\x00")
def test_no_bytes_from_outside_can_raise(data: str | bytes) -> None:
    parsed = parse_command(data)
    if isinstance(parsed, Refusal):
        assert parsed.text and len(parsed.text) < 2000
    else:  # whatever got through means the same when it is said again
        assert parse_command(parsed.model_dump_json()) == parsed


def test_inbox_passes_commands_on_counts_refusals_and_says_each_kind_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("myoloop.streams.commands.LISTENED_S", 60.0)
    done: list[Command] = []
    said: list[str] = []

    def obey(command: Command) -> None:
        if isinstance(command, Rotate):
            raise MyoloopError("this armband stays")
        done.append(command)

    inbox, sender = CommandInbox("cmdtest", obey, said.append), CommandSender("cmdtest")
    try:
        assert sender.send(Pause())
        second = CommandSender("cmdtest")  # another window: it becomes the newest, and is listened to
        assert second.send(Resume())
        until = time.monotonic() + 60
        while sender._outlet.have_consumers() and time.monotonic() < until:  # type: ignore[union-attr]
            time.sleep(0.02)
        assert sender.send(Rotate(degrees=3.0))
        until = time.monotonic() + 60
        while inbox.accepted + inbox.refused < 3 and time.monotonic() < until:
            time.sleep(0.02)
        for text in ("nonsense", "more nonsense", "{}"):
            inbox.take(text)
        second.close()
    finally:
        sender.close()
        inbox.close()
    assert done == [Pause(), Resume()]
    assert (inbox.accepted, inbox.refused) == (2, 4)
    assert len(said) == 3 and all("cmdtest_command" in text for text in said)


def test_sender_says_when_nobody_listens() -> None:
    sender = CommandSender("nobody_there")
    assert not sender.send(Pause())
    sender.close()
