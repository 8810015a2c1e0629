"""Which frames of a cache are read from the disk before they are copied."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest

from training.data.frames.read_ahead import read_ahead

FRAMES, SIZE = 40, 24 * mmap.PAGESIZE


@pytest.fixture
def frames(tmp_path):
    """A mapped array that is not in memory."""
    path = tmp_path / "frames.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(FRAMES, SIZE))
    array[:] = np.arange(FRAMES, dtype=np.uint8)[:, None]
    array.flush()
    del array
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return np.lib.format.open_memmap(path, mode="r")


def in_memory(frames):
    """Which frames' pages the system holds, without touching one."""
    start = frames.ctypes.data - frames.offset
    pages = -(-(frames.offset + frames.nbytes) // mmap.PAGESIZE)
    held = (ctypes.c_ubyte * pages)()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(pages * mmap.PAGESIZE), held) == 0
    bounds = [(frames.offset + frame * SIZE) // mmap.PAGESIZE for frame in range(FRAMES + 1)]
    return [all(page & 1 for page in held[bounds[frame] : bounds[frame + 1] + 1]) for frame in range(FRAMES)]


def test_the_frames_that_are_asked_for_come_into_memory_and_no_others(frames):
    wanted = {0, 17, FRAMES - 1}
    before = in_memory(frames)
    if all(before[frame] for frame in wanted):
        pytest.skip("this file system keeps in memory what it is told to drop")
    read_ahead(frames, np.array(sorted(wanted)))
    end = time.monotonic() + 20
    while not all(in_memory(frames)[frame] for frame in wanted) and time.monotonic() < end:
        time.sleep(0.01)
    expected = [held or frame in wanted for frame, held in enumerate(before)]
    assert in_memory(frames) == expected
    assert [int(frame[0]) for frame in frames[sorted(wanted)]] == sorted(wanted)
