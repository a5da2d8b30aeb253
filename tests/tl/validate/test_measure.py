from __future__ import annotations

import mmap
import time

import pytest

from agevi.tl.validate import _measure


def work():
    """32 MiB that are gone at the end, in 0.05 seconds or more.

    They come from the system and not from the allocator, which may hold free memory of earlier tests that is resident already.
    """
    with mmap.mmap(-1, 32 * 2**20) as block:
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        time.sleep(0.05)


def test_seconds_and_a_peak_that_is_gone():
    watch = _measure.Watch()
    work()
    assert 0.05 <= watch.seconds < 5
    assert 30 < watch.peak_memory < 64


def test_an_earlier_peak_is_not_counted():
    work()
    watch = _measure.Watch()
    assert watch.peak_memory < 8


def test_without_a_kernel_that_tells(monkeypatch):
    monkeypatch.setattr(_measure, "_reset_peak", lambda: False)
    levels = iter([100.0 * 2**20, 130.0 * 2**20])
    monkeypatch.setattr(_measure, "_highest", lambda: next(levels))
    watch = _measure.Watch()
    assert watch.peak_memory == pytest.approx(30)


def test_highest_level_in_bytes():
    assert _measure._highest() > 50 * 2**20
