"""Reading frames: exactly those of a plain decode from the start, or a typed error that says why not."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.datasets.media import decode_all, picture, read_number, truncate, write_audio, write_video
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.video import pyav_reader, readers
from timesformer.video.pyav_reader import PyAVReader
from timesformer.video.readers import open_frames, open_video, resolve_backend

REAL_CLIPS = Path(__file__).parents[2].parent / "shared/real_clips"
NUM_DECODABLE = {
    "mmaction2__demo.mp4": 280,
    "mmaction2__test.avi": 164,
    "mmaction2__test_video_structuralize.mp4": 300,
    "mmaction2__part_0.mp4": 32,
    "decord__flipping_a_pancake.mkv": 310,
    "torchcodec__nasa_13013.mp4": 325,
    "torchcodec__nasa_13013_rotated.mp4": 17,
    "torchcodec__test_non_zero_start.mp4": 12,
    "torchcodec__discard_first_keyframe.mp4": 25,
    "torchcodec__testsrc2_vp9.webm": 30,
}
real_clips = pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="the folder of real clips is not here")

B_FRAMES = {"bframes": 2, "options": {"bf": "2", "b-pyramid": "normal"}}
RENDERED: dict[str, dict] = {
    "h264.mp4": {},
    "h264_b_frames.mp4": B_FRAMES,
    "h264_one_gop.mp4": {**B_FRAMES, "gop": 250},
    "h264_open_gop.mp4": {"bframes": 3, "options": {"bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "h264_intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1"}},
    "h264_all_intra.mp4": {"gop": 1},
    "h264_two_frame_gops.mp4": {"gop": 2, "bframes": 1, "options": {"x264-params": "open-gop=1:scenecut=0"}},
    "h264_fragmented.mp4": {**B_FRAMES, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_vfr.mp4": {**B_FRAMES, "ticks_per_frame": 4, "pts": [4 * i + i % 3 + i // 20 for i in range(50)]},
    "h264_late_start.mp4": {**B_FRAMES, "pts": list(range(1000, 1050))},
    "h264.mkv": B_FRAMES,
    "h264.ts": B_FRAMES,
    "h264_raw.h264": {**B_FRAMES, "fps": 25},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=3"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "bframes": 2, "fps": 25},
    "mpeg2_shared_stamps.mpg": {
        **{"codec": "mpeg2video", "bframes": 2, "fps": 25, "size": (64, 64)},
        "options": {"flags": "+ilme+ildct"},
    },
    "h264_interlaced.mp4": {**B_FRAMES, "options": {"x264-params": "tff=1", "flags": "+ilme+ildct"}},
    "h264.avi": {},
    "h264_b_frames.avi": B_FRAMES,
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "bframes": 2},
    "mpeg4.mp4": {"codec": "mpeg4", "bframes": 2},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "25"}},
    "turned_left.mp4": {"rotation": 90},
    "turned_right.mp4": {**B_FRAMES, "rotation": -90},
    "turned_over.mp4": {"rotation": 180},
}


def check_exact(path: Path) -> PyAVReader:
    """Compares reads in many orders with a plain decode, byte by byte; returns a (closed) reader.

    The first reader surveys the file and reads from what it keeps of it, the second one seeks.
    """
    expected, damage = decode_all(path)
    assert damage is None
    num_frames = len(expected)
    generator = np.random.default_rng(num_frames)
    orders = [
        np.arange(num_frames),
        np.arange(num_frames)[::-1],
        np.linspace(0, num_frames - 1, 8).astype(int),
        np.array([num_frames - 1]),
        *(generator.integers(0, num_frames, size=generator.integers(1, 7)) for _ in range(6)),
    ]
    pyav_reader._surveys.clear()
    for _ in range(2):
        with PyAVReader(str(path)) as reader:
            assert reader.info.num_frames == num_frames
            assert (reader.info.height, reader.info.width) == expected[0].shape[:2]
            for order in orders:
                frames = reader.read(order)
                assert frames.dtype == np.uint8 and frames.shape == (len(order), *expected[0].shape)
                assert frames.flags.c_contiguous
                for frame, i in zip(frames, order, strict=True):
                    assert np.array_equal(frame, expected[i]), f"{path.name}: frame {i} of {order.tolist()}"
    return reader


def cause_of(path: Path, indices: list[int] | None = None) -> str:
    with pytest.raises(VideoReadError) as info, open_video(str(path)) as reader:
        reader.read([0] if indices is None else indices)
    assert info.value.path == str(path) and str(path) in str(info.value)
    return info.value.cause


@real_clips
@pytest.mark.parametrize("name", NUM_DECODABLE)
def test_real_clips_are_read_exactly(name: str) -> None:
    assert check_exact(REAL_CLIPS / name).info.num_frames == NUM_DECODABLE[name]


@real_clips
def test_a_damaged_file_gives_its_good_frames_and_names_the_first_bad_one() -> None:
    path = REAL_CLIPS / "decord__corrupted.mp4"
    expected, _ = decode_all(path)
    with open_video(str(path)) as reader:
        assert reader.info.num_frames == 50
        assert np.array_equal(reader.read(range(28)), np.stack(expected))
    assert "frame 31 cannot be decoded: 28 of its 50 frames can" in cause_of(path, [3, 40, 31])


@pytest.mark.parametrize("name", RENDERED)
def test_rendered_clips_are_read_exactly(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, **{"num_frames": 50, **RENDERED[name]})
    reader = check_exact(path)
    assert reader.info.num_frames == 50
    assert reader.info.fps == pytest.approx(RENDERED[name].get("fps", 30), rel=0.1)
    assert reader.info.warnings == ()


def test_frames_show_the_number_they_were_asked_by(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a: 100% name.mp4", num_frames=40, bframes=2)
    with open_video(str(path)) as reader:
        assert [read_number(frame) for frame in reader.read([31, 5, 5, 39, 0])] == [31, 5, 5, 39, 0]


def test_no_frames_wanted_gives_an_empty_array(tmp_path: Path) -> None:
    with open_video(str(write_video(tmp_path / "a.mp4", num_frames=3))) as reader:
        assert reader.read([]).shape == (0, 48, 64, 3)


def test_a_frame_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=3)
    assert cause_of(path, [0, 3]) == "frame 3 was requested; it has 3, from 0"
    assert "frame -1" in cause_of(path, [-1])


def test_where_seeking_fails_it_decodes_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=40, bframes=2)
    monkeypatch.setattr(PyAVReader, "_read_group", lambda *_: False)
    check_exact(path)


def test_pictures_that_are_not_coded_do_not_shift_the_count(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.avi", codec="mpeg4", num_frames=20, fps=16)
    with av.open(str(source)) as reading, av.open(str(tmp_path / "b.avi"), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.pts == 7:  # a P picture at 7 / 16 s with vop_coded = 0 (ISO/IEC 14496-2, 6.2.5)
                empty = av.Packet(bytes([0, 0, 1, 0xB6, 0b0101_0111, 0b1001_1111]))
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                packet = empty
            packet.stream = stream
            if packet.size:
                writing.mux(packet)
    assert check_exact(tmp_path / "b.avi").info.num_frames == 19


def test_mirrored_display_matrix_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_matrix([-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0b00000111), format="rgb24")))
        container.mux(stream.encode(None))
    with open_video(str(path)) as reader:
        assert read_number(reader.read([0])[0]) == 0b11100000


def test_the_first_video_stream_is_read_and_cover_art_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=10) for _ in range(2)]
        for stream, (width, height) in zip(streams, [(64, 48), (128, 96)], strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for stream in streams:
            frame = av.VideoFrame.from_ndarray(picture(5, (stream.width, stream.height)), format="rgb24")
            container.mux([*stream.encode(frame), *stream.encode(None)])
    with open_video(str(path)) as reader:
        assert (reader.info.width, reader.info.height) == (64, 48)


# Faults


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert cause_of(tmp_path / "none.mp4") == "no such file"
    assert cause_of(tmp_path) == "it is a folder, not a file"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "the file is empty"),
        (b"this is not a video\n" * 200, "it is a text file"),
        ("élan vital ".encode() * 200, "it is a text file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "it is a web page"),
        (bytes(range(256)) * 20, "it is not a video that FFmpeg can open"),
    ],
)
def test_files_that_are_no_video(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert cause in cause_of(path)


def test_sound_without_pictures(tmp_path: Path) -> None:
    assert cause_of(write_audio(tmp_path / "a.mp4")) == "it has no video stream (only audio)"


def test_truncated_mp4_with_its_index_at_the_end(tmp_path: Path) -> None:
    assert "truncated: its index is missing" in cause_of(truncate(write_video(tmp_path / "a.mp4"), 0.7))


def test_truncated_mp4_with_its_index_first_gives_its_good_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", num_frames=60, container_options={"movflags": "faststart"})
    truncate(path, 0.6)
    expected, _ = decode_all(path)
    with open_video(str(path)) as reader:
        assert 0 < reader.info.num_frames < 60
        assert any("promises 60 frames" in warning for warning in reader.info.warnings)
        wanted = range(min(reader.info.num_frames, len(expected)))
        assert np.array_equal(reader.read(wanted), np.stack([expected[i] for i in wanted]))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("ending", ["avi", "mkv"])
def test_truncated_avi_and_mkv_give_what_is_left_and_both_counts(tmp_path: Path, ending: str, codec: str) -> None:
    path = truncate(write_video(tmp_path / f"a.{ending}", codec=codec, num_frames=60), 0.8)
    expected, _ = decode_all(path)
    with open_video(str(path)) as reader:
        assert reader.info.num_frames == len(expected) < 60
        assert np.array_equal(reader.read(range(len(expected))), np.stack(expected))
    assert f"promises 60 frames and {len(expected)} are there (truncated?)" in reader.info.warnings[0]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_an_avi_without_index_is_read_exactly(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "a.avi", codec=codec, num_frames=40)
    path.write_bytes(path.read_bytes().replace(b"idx1", b"JUNK"))
    assert check_exact(path).info.num_frames == 40


@pytest.mark.parametrize("promised", [400, 5])
def test_a_wrong_frame_count_in_the_header_does_no_harm(tmp_path: Path, promised: int) -> None:
    path = write_video(tmp_path / "a.avi", codec="mpeg4", num_frames=40)
    data = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # dwTotalFrames, dwLength
        place = data.index(tag) + offset
        assert int.from_bytes(data[place : place + 4], "little") == 40
        data[place : place + 4] = promised.to_bytes(4, "little")
    path.write_bytes(data)
    assert check_exact(path).info.num_frames == 40


@pytest.mark.parametrize(("scale", "rate", "reported"), [(60000, 1, True), (1, 90000, False)])
def test_a_silly_frame_rate_is_not_believed(tmp_path: Path, scale: int, rate: int, reported: bool) -> None:
    """The stream within the file knows better in the second case."""
    path = write_video(tmp_path / "a.avi", codec="mpeg4", num_frames=5)
    data = bytearray(path.read_bytes())
    place = data.index(b"strh") + 8 + 20  # dwScale, dwRate
    data[place : place + 8] = scale.to_bytes(4, "little") + rate.to_bytes(4, "little")
    path.write_bytes(data)
    info = check_exact(path).info
    warning = "the file does not say a frame rate from 0.1 to 1000; 30 frames a second are assumed"
    assert info.fps == 30.0 and info.warnings == (warning,) * reported


def test_a_zeroed_part_gives_the_frames_before_it_and_after_the_next_keyframe(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mp4",
        num_frames=60,
        gop=45,
        bframes=2,
        options={"x264-params": "scenecut=0"},
        container_options={"movflags": "faststart"},
    )
    whole, _ = decode_all(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) // 2)
    path.write_bytes(data)
    before, damage = decode_all(path)
    assert damage is not None and 0 < len(before) < 45
    with open_video(str(path)) as reader:
        assert np.array_equal(reader.read(range(len(before))), np.stack(before))
        assert np.array_equal(reader.read(range(45, 60)), np.stack(whole[45:]))
    assert f"frame 44 cannot be decoded: {len(before)} of its 60 frames can" in cause_of(path, [44, 50])


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "an_mp4_really.avi"])
def test_one_frame_and_a_wrong_ending_are_fine(tmp_path: Path, name: str) -> None:
    source = "a.mp4" if name == "an_mp4_really.avi" else name
    path = write_video(tmp_path / source, num_frames=1).rename(tmp_path / name)
    assert check_exact(path).info.num_frames == 1


# Folders of frames


def test_pictures_are_read_as_rgb_in_any_order(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i:05d}.png") for i in range(5)]
    for i, file in enumerate(files):
        cv2.imwrite(file, picture(i)[..., ::-1])
    with open_frames(files, fps=12.0) as reader:
        assert (reader.info.num_frames, reader.info.fps, reader.info.duration_sec) == (5, 12.0, 5 / 12)
        assert np.array_equal(reader.read([4, 0, 4]), np.stack([picture(4), picture(0), picture(4)]))
        with pytest.raises(VideoReadError, match="frame 5 was requested; the folder has 5"):
            reader.read([5])


def test_missing_damaged_and_odd_pictures_are_named(tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}.png") for i in range(4)]
    cv2.imwrite(files[0], picture(0))
    (tmp_path / "1.png").write_bytes(b"no picture")
    cv2.imwrite(files[3], picture(0, (128, 96)))
    with open_frames(files, fps=30.0) as reader:
        for i, cause in ((1, "not a picture"), (2, "no such picture"), (3, "it is 128x96, the first")):
            with pytest.raises(VideoReadError, match=cause) as info:
                reader.read([0, i])
            assert info.value.path == files[i]
    with pytest.raises(VideoReadError, match="no pictures"):
        open_frames([], fps=30.0)


# Backends


def test_unknown_backend_names_the_choices() -> None:
    with pytest.raises(UserError, match="auto, pyav, torchcodec"):
        resolve_backend("decord")


def test_auto_takes_pyav_where_torchcodec_does_not_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_torchcodec_problem", lambda: "No module named 'torchcodec'")
    assert resolve_backend("auto") == "pyav"
    with pytest.raises(UserError, match=r"No module named 'torchcodec'.*DATA.DECODING_BACKEND pyav"):
        resolve_backend("torchcodec")


def test_auto_takes_torchcodec_where_it_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_torchcodec_problem", lambda: "")
    assert resolve_backend("auto") == resolve_backend("torchcodec") == "torchcodec"


@pytest.mark.parametrize("name", ["h264_b_frames.mp4", "mpeg4_b_frames.avi", "turned_left.mp4", "vp9.webm"])
def test_torchcodec_gives_the_same_frames(tmp_path: Path, name: str) -> None:
    if resolve_backend("auto") != "torchcodec":
        pytest.skip("torchcodec does not decode here")
    path = write_video(tmp_path / name, **{"num_frames": 50, **RENDERED[name]})
    with open_video(str(path), backend="torchcodec") as reader, open_video(str(path)) as reference:
        assert reader.info.num_frames == reference.info.num_frames
        wanted = [49, 3, 3, 20]
        assert np.abs(reader.read(wanted).astype(int) - reference.read(wanted)).max() <= 2


@pytest.mark.parametrize("error", [ValueError("time data '0' does not match"), IndexError(), OSError(5, "I/O error")])
def test_whatever_a_library_raises_is_the_failure_of_that_file(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write_video(tmp_path / "a.mp4", num_frames=3))

    def fail(*_: object) -> None:
        raise error

    with open_video(path) as reader:
        monkeypatch.setattr(PyAVReader, "read", fail)
        with pytest.raises(VideoReadError, match=f"a.mp4: reading it fails with {type(error).__name__}: "):
            reader.read([0])
    monkeypatch.setattr(PyAVReader, "__init__", fail)
    with pytest.raises(VideoReadError, match=f"a.mp4: reading it fails with {type(error).__name__}: "):
        open_video(path)
