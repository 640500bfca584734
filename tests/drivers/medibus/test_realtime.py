from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.medibus.realtime import RAW_BYTES_MAX, SAMPLES_MAX, CurveDecoder, Piece, encode_enable
from simulators.medibus_codec import HostEar, curve_record

LAW = settings(max_examples=40, deadline=None)


def pieces_of(decoder: CurveDecoder, *data: bytes) -> list[Piece]:
    pieces = [piece for part in data for piece in decoder.receive(part)]
    last = decoder.flush()
    return pieces if last is None else [*pieces, last]


def columns(pieces: list[Piece]) -> list[list[int | None]]:
    return [[sample for piece in pieces for sample in piece.samples[n]] for n in range(len(pieces[0].samples))]


def test_the_enabling_bytes_are_those_of_the_manual_and_the_device_understands_them() -> None:
    assert encode_enable(2).hex(" ") == "d0 c1 c3 c0 c0"
    assert encode_enable(4).hex(" ") == "d0 c1 cf c0 c0"
    assert encode_enable(0).hex(" ") == "d0 c1 c0 c0 c0"
    for streams in (1, 4, 5, 12):
        ear = HostEar()
        ear.hear(encode_enable(streams))
        assert ear.enabled() == [number < streams for number in range(12)]


@given(
    every=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    length=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
    base_us=st.sampled_from([4000, 5200, 16000]),
)
@LAW
def test_streams_of_different_rates_are_told_apart_however_they_are_cut(
    every: list[int], length: int, cuts: list[int], base_us: int
) -> None:
    sent: list[list[int | None]] = [[] for _ in every]
    data = b""
    for tick in range(length):
        values = {stream: (tick * 7 + stream) % 4096 for stream, step in enumerate(every) if tick % step == 0}
        for stream, value in values.items():
            sent[stream].append(value)
        data += curve_record(values, True if tick % 50 == 1 and values else None) if values else b""
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})

    pieces = pieces_of(
        CurveDecoder([step * base_us for step in every]),
        *(data[start:end] for start, end in zip([0, *ends], ends, strict=False)),
    )

    assert columns(pieces) == sent
    assert not any(piece.gap for piece in pieces)
    assert pieces == pieces_of(CurveDecoder([step * base_us for step in every]), data)


def test_a_record_that_lost_a_byte_is_a_gap_and_no_sample() -> None:
    good = [curve_record({0: n, 1: 100 + n}) for n in range(6)]
    for place in range(1, len(good[2])):
        broken = good[2][:place] + good[2][place + 1 :]

        pieces = pieces_of(CurveDecoder([8000, 8000]), b"".join([*good[:2], broken, *good[3:]]))

        assert columns(pieces) == [[0, 1, 3, 4, 5], [100, 101, 103, 104, 105]]
        assert [piece.gap for piece in pieces] == [False, True]


def test_a_lost_sync_byte_is_a_gap() -> None:
    good = [curve_record({0: n}) for n in range(4)]

    pieces = pieces_of(CurveDecoder([8000]), b"".join([good[0], good[1][1:], *good[2:]]))

    assert [(piece.samples, piece.gap) for piece in pieces] == [(((0,),), False), (((2, 3),), True)]


def test_a_sample_that_one_stream_lacks_is_none() -> None:
    data = b"".join(curve_record({0: n} if n == 3 else {0: n, 1: n}) for n in range(6))

    assert columns(pieces_of(CurveDecoder([8000, 8000]), data)) == [[0, 1, 2, 3, 4, 5], [0, 1, 2, None, 4, 5]]


def test_streams_five_to_twelve_are_named_by_commands_that_stay() -> None:
    first = bytes((0xD1, 0xC4, 0xC2, 0xC5, 0xC1, 0x81, 0x80, 0x82, 0x80, 0x83, 0x80))  # streams 1, 6 and 9
    second = bytes((0xD1, 0x84, 0x80, 0x85, 0x80, 0x86, 0x80))
    third = bytes((0xD1, 0xC4, 0xC0, 0xC5, 0xC0, 0x87, 0x80))

    found = columns(pieces_of(CurveDecoder([8000] * 9), first + second + third))

    assert (found[0], found[5], found[8]) == ([1, 4, 7], [2, 5], [3, 6])


def test_marks_without_values_end_with_their_command_and_take_no_value_away() -> None:
    mark = bytes((0xD0, 0xC6, 0xC1, 0xC0, 0xC0))

    pieces = pieces_of(CurveDecoder([8000]), curve_record({0: 1}) + mark + curve_record({0: 2}))

    assert pieces[0].samples == ((1, 2),) and pieces[0].breaths == ((8000, False),)


def test_a_stream_that_was_not_asked_for_is_not_read() -> None:
    assert pieces_of(CurveDecoder([8000]), curve_record({0: 1, 1: 2})) == []


def test_a_piece_is_half_a_second() -> None:
    pieces = pieces_of(CurveDecoder([10_000]), b"".join(curve_record({0: n}) for n in range(120)))

    assert [len(piece.samples[0]) for piece in pieces] == [50, 50, 20]
    assert b"".join(piece.raw for piece in pieces) == b"".join(curve_record({0: n}) for n in range(120))


@given(data=st.binary(max_size=3000).map(lambda b: bytes(x | 0x80 for x in b)), periods=st.lists(st.integers(1, 10**9)))
@LAW
def test_no_bytes_raise_and_memory_is_bounded(data: bytes, periods: list[int]) -> None:
    decoder = CurveDecoder(periods[:12])

    for start in range(0, len(data), 100):
        for piece in decoder.receive(data[start : start + 100]):
            assert all(len(samples) <= SAMPLES_MAX + 200 for samples in piece.samples)
        assert decoder.buffered < RAW_BYTES_MAX + 200
