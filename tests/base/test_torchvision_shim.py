"""torchvision is mended only where it is broken in the one known way."""

import importlib
import subprocess
import sys

import pytest

from ruac.base import torchvision_shim


@pytest.fixture
def broken_import(monkeypatch):
    def make(error):
        original = importlib.import_module

        def fail(name, *args, **kwargs):
            if name == "torchvision":
                raise error
            return original(name, *args, **kwargs)

        monkeypatch.setattr(importlib, "import_module", fail)

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


@pytest.mark.parametrize("first", ["torchvision.ops", "torchmetrics", "accelerate", "kornia", "sam2.build_sam"])
def test_whoever_imports_torchvision_first_gets_it_mended(first):
    code = (
        f"import sys, ruac; assert 'torch' not in sys.modules; import {first}; import torchvision\n"
        "from torchvision.ops import nms; assert torchvision.__spec__.name == 'torchvision'\n"
        "assert sys.modules['torchvision.ops'] is torchvision.ops"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_looking_for_torchvision_does_not_import_it():
    code = "import sys, ruac, importlib.util as u; assert u.find_spec('torchvision'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
