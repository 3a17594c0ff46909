"""A few small grey frames of every video, read in worker processes: what cannot be read, hangs or crashes is named."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from tqdm import tqdm

from timesformer.curation.facts import content_digest
from timesformer.datasets.guarded import GuardedCall, StartError
from timesformer.datasets.opening import open_record, sample_record
from timesformer.datasets.records import Failure, VideoRecord
from timesformer.utils.env import available_cpus
from timesformer.utils.errors import UserError, VideoReadError
from timesformer.video.frame_samplers import FrameSampler
from timesformer.video.thumbnails import grey_thumbnail
from timesformer.video.video_info import VideoInfo

SIDE = 16  # pixels of a small frame; every video is squeezed to a square, so other sizes of it look alike
TIMEOUT_SEC = 120.0  # for the frames of one video
_AT_A_TIME = 8  # frames that are held in full size


@dataclass(frozen=True)
class SmallVideo:
    """Frames spread evenly over a video, from its first to its last.

    Attributes:
        info: of the whole file.
        times_sec: (T,) when each is shown, from the first on.
        frames: (T, SIDE, SIDE) float16, grey levels.
        digest: of the content; "" where it was not computed.
    """

    info: VideoInfo
    times_sec: np.ndarray
    frames: np.ndarray
    digest: str = ""

    @property
    def duration_sec(self) -> float:
        """Of the part of the file that is used."""
        return float(self.times_sec[-1]) + 1 / self.info.fps


def read_small_videos(
    records: Sequence[VideoRecord],
    *,
    num_frames: int,
    title: str,
    digests: Collection[int] = (),
    backend: str = "pyav",
    timeout_sec: float = TIMEOUT_SEC,
    num_processes: int | None = None,
    show_progress: bool = False,
) -> list[SmallVideo | Failure]:
    """The small frames of every record, in order, or why it cannot be read.

    Args:
        records: the videos.
        num_frames: of each video, where it has so many.
        title: of the progress bar.
        digests: indices of the records whose files are hashed too.
        backend: decoder of video files.
        timeout_sec: after which a video is one that hangs.
        num_processes: None: one for each CPU that this process may use.
        show_progress: whether to show a progress bar.

    Raises:
        UserError: the processes do not start.
    """
    num_processes = max(1, min(num_processes or available_cpus(), len(records)))
    calls: SimpleQueue[GuardedCall[SmallVideo]] = SimpleQueue()
    for _ in range(num_processes):  # spawned: to fork a process that has threads is not safe
        calls.put(GuardedCall(read_small_video, timeout_sec=timeout_sec, start_method="spawn"))

    def read(index: int) -> SmallVideo | Failure:
        record, call = records[index], calls.get()
        try:
            return call(record, num_frames, backend, index in digests)
        except VideoReadError as error:
            return Failure.of(index, record, error)
        except TimeoutError:
            return Failure(index, record.path, record.source, f"it hangs: nothing came within {timeout_sec:g} s")
        except StartError as error:
            raise UserError(f"videos cannot be read in processes: {error}; its own message is above") from error
        except ChildProcessError as error:
            return Failure(index, record.path, record.source, f"it crashes the decoder: {error}")
        finally:
            calls.put(call)

    try:
        with ThreadPoolExecutor(num_processes) as pool:
            jobs = pool.map(read, range(len(records)))
            return [*tqdm(jobs, title, len(records), unit="video", disable=not show_progress, leave=False)]
    finally:
        while not calls.empty():
            calls.get().close()


def read_small_video(record: VideoRecord, num_frames: int, backend: str, digest: bool) -> SmallVideo:
    """The small frames of one record.

    Raises:
        VideoReadError: one of them cannot be decoded.
    """
    with open_record(record, backend=backend) as reader:
        indices = sample_record(record, reader.info, evenly_spread(num_frames), np.random.default_rng(0))[0]
        parts = (reader.read(indices[start : start + _AT_A_TIME]) for start in range(0, len(indices), _AT_A_TIME))
        small = [grey_thumbnail(frame, SIDE) for part in parts for frame in part]
        info = reader.info
    times = (indices - indices[0]) / info.fps
    return SmallVideo(info, times, np.stack(small).astype(np.float16), content_digest(record) if digest else "")


def evenly_spread(num_frames: int) -> FrameSampler:
    """Up to `num_frames` different frames from the first to the last."""
    return lambda count, *_: np.linspace(0, count - 1, min(count, num_frames)).round().astype(np.int64)[None]
