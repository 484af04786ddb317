"""Functions of numbers and arrays, compiled for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable, **options: Any) -> Callable:
    """Compiled and kept on disk where there is a place for it: an installed copy may be read-only, without a home.

    options: of `numba.njit`, such as fastmath.
    """
    try:
        return njit(cache=True, nogil=True, error_model="numpy", **options)(function)
    except RuntimeError:
        return njit(nogil=True, error_model="numpy", **options)(function)
