"""Functions of numbers and arrays, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from numba import njit

FAST = {"reassoc", "contract", "nsz"}  # what sums may do; what is no number stays none


def compiled(function: Callable, **options: Any) -> Callable:
    """Compiled and kept on disk where there is a place for it: an installed copy may be read-only, without a home.

    options: of `numba.njit`, such as fastmath.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy", **options)(function)


def in_parts(work: Callable[[int, int], None], count: int) -> None:
    """``work(start, stop)`` over `count` items, in as many threads as torch has."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    bounds = [count * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: work(*part), pairwise(bounds)))
