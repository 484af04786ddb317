"""torchvision is mended only where it is broken in the one known way."""

import builtins

import pytest

from ruac.base import torchvision_shim


@pytest.fixture
def broken_import(monkeypatch):
    def make(error):
        original = builtins.__import__

        def fail(name, *args, **kwargs):
            if name == "torchvision":
                raise error
            return original(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fail)

    return make


def test_torchvision_works_after_import_of_ruac():
    from torchvision.models import mobilenet_v2
    from torchvision.ops import sigmoid_focal_loss

    assert callable(mobilenet_v2)
    assert callable(sigmoid_focal_loss)


def test_a_second_call_changes_nothing():
    before = torchvision_shim._library
    torchvision_shim.ensure_torchvision()
    assert torchvision_shim._library is before


@pytest.mark.parametrize("error", [RuntimeError("something else"), ImportError("no torchvision")])
def test_other_failures_are_not_hidden(broken_import, error):
    before = torchvision_shim._library
    broken_import(error)
    with pytest.raises(type(error)) as info:
        torchvision_shim.ensure_torchvision()
    assert info.value is error
    assert torchvision_shim._library is before
