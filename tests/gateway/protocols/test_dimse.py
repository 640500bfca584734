import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, N_CREATE_RSP
from pynetdicom.dimse_primitives import C_STORE, N_CREATE

from gateway.errors import FrameError
from gateway.protocols.dimse import Command, Field, decode_command, encode_command, response_to

TEXT = st.text("0123456789.", max_size=64)
SHORT = st.none() | st.integers(0, 0xFFFF)
COMMANDS = st.builds(
    Command,
    field=st.sampled_from([*Field, *[response_to(field) for field in Field]]),
    message_id=SHORT,
    responded_to=SHORT,
    sop_class_uid=TEXT,
    sop_instance_uid=TEXT,
    has_data=st.booleans(),
    priority=SHORT,
    status=SHORT,
    comment=st.text("abc XYZ", max_size=64).map(str.strip),
    error_id=SHORT,
    offending=st.lists(st.integers(0, 0xFFFFFFFF), max_size=4).map(tuple),
    event_type=SHORT,
    action_type=SHORT,
    move_destination=st.text("ABC", max_size=16),
    remaining=SHORT,
    failed=SHORT,
)


@settings(max_examples=100, deadline=None)
@given(COMMANDS)
def test_a_command_comes_back_as_it_went(command: Command) -> None:
    assert decode_command(encode_command(command)) == command


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_command_or_a_frame_error(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert isinstance(decode_command(data), Command)


@settings(max_examples=50, deadline=None)
@given(COMMANDS, st.data())
def test_a_command_cut_short_is_a_frame_error_or_another_command(command: Command, data: st.DataObject) -> None:
    whole = encode_command(command)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with contextlib.suppress(FrameError):
        decode_command(whole[:cut])


def test_the_library_writes_what_we_read() -> None:
    request = C_STORE()
    request.MessageID, request.Priority = 7, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = "1.2.3", "1.2.3.4.5"
    request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID = "MOVER", 3
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    (fragment,) = message.encode_msg(1, 0)

    command = decode_command(fragment.presentation_data_value_list[0][1][1:])

    assert command == Command(
        field=Field.C_STORE,
        message_id=7,
        priority=2,
        sop_class_uid="1.2.3",
        sop_instance_uid="1.2.3.4.5",
        has_data=False,
        move_originator_ae_title="MOVER",
        move_originator_message_id=3,
    )


def test_the_library_reads_what_we_write() -> None:
    response = Command(
        field=response_to(Field.N_CREATE),
        responded_to=9,
        sop_class_uid="1.2.3",
        sop_instance_uid="1.2.3.4",
        status=0x0110,
        comment="not now",
        error_id=0xA710,
    )
    message = N_CREATE_RSP()
    message.encoded_command_set.write(encode_command(response))
    from pynetdicom.dsutils import decode

    message.command_set = decode(message.encoded_command_set, True, True)
    primitive = message.message_to_primitive()

    assert isinstance(primitive, N_CREATE)
    assert (primitive.Status, primitive.ErrorComment, primitive.ErrorID) == (0x0110, "not now", 0xA710)
    assert (primitive.MessageIDBeingRespondedTo, primitive.AffectedSOPInstanceUID) == (9, "1.2.3.4")


def test_requested_uids_are_written_where_the_standard_says() -> None:
    change = encode_command(Command(field=Field.N_SET, sop_class_uid="1.2", sop_instance_uid="1.3"))
    create = encode_command(Command(field=Field.N_CREATE, sop_class_uid="1.2", sop_instance_uid="1.3"))

    assert b"\0\0\x03\0" in change
    assert b"\0\0\x01\x10" in change
    assert b"\0\0\x02\0" in create
    assert b"\0\0\0\x10" in create


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0\x01\2\0\0\0", b"\0\0\0\x01\xff\xff\xff\xff"])
def test_a_command_without_a_field_or_its_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        decode_command(data)
