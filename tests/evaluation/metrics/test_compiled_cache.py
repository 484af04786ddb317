"""Compiled counts where numba finds no place to keep them: a read-only package and no home folder."""

import numba.core.caching as caching
import pytest

from ruac.base.compiled import compiled


def test_without_a_place_for_the_cache(monkeypatch):
    implementation = caching.CompileResultCacheImpl
    monkeypatch.setattr(implementation, "_locator_classes", [])

    def add(x):
        return x + 1

    with pytest.raises(RuntimeError, match="cannot cache function"):  # or this tests nothing
        caching.FunctionCache(add)
    assert compiled(add)(1) == 2
