"""Predictors from folders and hubs: the same numbers, no network for a folder, nothing of a config reaches code."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import save_backbone, with_head

hub_mixin = pytest.importorskip("huggingface_hub.hub_mixin", reason="an extra")

from huggingface_hub import ModelCard  # noqa: E402
from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from ruac import Predictor  # noqa: E402
from ruac.backbone import BackboneConfig, load_backbone  # noqa: E402
from ruac.base.errors import RuacError  # noqa: E402
from ruac.calibration.temperature import Temperature  # noqa: E402
from ruac.conformal.bounds import BoundsConfig, fit_bounds  # noqa: E402
from ruac.conformal.mask_losses import INNER, OUTER  # noqa: E402
from ruac.inference.bounds import bounds_identity  # noqa: E402
from ruac.inference.export import export_model, model_identity  # noqa: E402
from ruac.inference.model import UncertainSam  # noqa: E402
from ruac.inference.reliability import Reader, Reliability, reliability_identity, save_reliability  # noqa: E402
from ruac.uncertainty import BayesianConfig  # noqa: E402

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
FILES = [
    "README.md",
    "calibrator.safetensors",
    "config.json",
    "conformal.json",
    "model.safetensors",
    "reliability.json",
]


def answer(predictor):
    predictor.set_image(IMAGE)
    return predictor.predict([[20, 15]], [1], decomposed=True, alpha=0.2)


def same(one, other):
    for name in ("masks", "scores", "probability", "uncertainty", "epistemic", "reliability", "inner", "outer"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.fixture(scope="module")
def folder(nano, tmp_path_factory):
    """A calibrated model with bounds and reliability beside it, as their verbs leave them."""
    root = tmp_path_factory.mktemp("hub")
    body = load_backbone(save_backbone(nano, root))
    model = with_head(body, BayesianConfig(logit_scale=True), noise=0.05)
    model.calibrator = Temperature(temperature=2.0)
    model.calibrator.origin.model = model_identity(model)["model"]
    out = export_model(model, body.config, root / "export", with_backbone=True, record={"step": 7})
    readers = {"": Reader({"predicted_iou": 1.0}, 0.0, [0.5], [0.1])}
    save_reliability(out / "reliability.json", Reliability(readers, reliability_identity(model)), {})
    falling = [np.repeat(np.linspace(1, 0, len(grid))[None], 50, 0) for grid in (OUTER, INNER)]
    fit_bounds(*falling, BoundsConfig(), identity=bounds_identity(model)).save(out / "conformal.json", alpha=0.2)
    return out


class FakeApi:
    """A hub in a folder."""

    root: Path

    def __init__(self, token=None):
        pass

    def create_repo(self, repo_id, private=None, exist_ok=False):
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, commit_message, **_):
        target = self.root / repo_id
        target.mkdir(parents=True)
        for path in Path(folder_path).iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return f"hub/{repo_id}"


def test_saved_and_loaded_is_the_same(folder, tmp_path):
    predictor = Predictor.from_pretrained(folder, device="cpu")
    assert predictor.save_pretrained(tmp_path / "saved") is None
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == FILES
    again = Predictor.from_pretrained(str(tmp_path / "saved"), device="cpu")
    same(answer(again), answer(predictor))
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["record"] == {"step": 7}
    names = load_file(tmp_path / "saved" / "model.safetensors")
    assert {name.split(".")[0] for name in names} == {"head", "backbone"}


def test_head_only_and_what_was_there_before(folder, nano, tmp_path):
    predictor = Predictor.from_pretrained(folder, device="cpu")
    predictor.save_pretrained(tmp_path / "out")
    plain = load_backbone("nano")
    vanilla = Predictor(with_head(plain, noise=0.05), device="cpu")
    vanilla.save_pretrained(tmp_path / "out", with_backbone=False, model_card_kwargs={"license": "apache-2.0"})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert ModelCard.load(tmp_path / "out" / "README.md").data.license == "apache-2.0"
    again = Predictor.from_pretrained(tmp_path / "out", device="cpu")
    for one in (vanilla, again):
        one.set_image(IMAGE)
    np.testing.assert_array_equal(vanilla.predict([[9, 9]], [1]).uncertainty, again.predict([[9, 9]], [1]).uncertainty)


def test_push_and_fetch(folder, tmp_path, monkeypatch):
    FakeApi.root = tmp_path
    monkeypatch.setattr(hub_mixin, "HfApi", FakeApi)
    predictor = Predictor.from_pretrained(folder, device="cpu")
    where = predictor.push_to_hub("someone/model", model_card_kwargs={"license": "mit"})
    assert where == "hub/someone/model"
    assert sorted(path.name for path in (tmp_path / "someone" / "model").iterdir()) == FILES
    assert ModelCard.load(tmp_path / "someone" / "model" / "README.md").data.license == "mit"
    assert predictor.generate_model_card(license="mit").data.pipeline_tag == "mask-generation"

    asked = []

    def download(repo_id, *, local_files_only, **_):
        asked.append(local_files_only)
        if local_files_only and len(asked) == 1:
            raise LocalEntryNotFoundError("not in the cache")
        return str(tmp_path / repo_id)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.chdir(folder)  # where no someone/model lies
    fetched = Predictor.from_pretrained("someone/model", device="cpu")
    assert asked == [True, False]
    same(answer(fetched), answer(predictor))
    Predictor.from_pretrained("someone/model", device="cpu")
    assert asked == [True, False, True]  # the cache is enough


def test_what_is_neither_folder_nor_hub_is_one_line(monkeypatch, tmp_path):
    def download(*_, **__):
        raise LocalEntryNotFoundError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(RuacError, match="runs/model: no such folder, and not from the hub: no network"):
        Predictor.from_pretrained("runs/model")
    with pytest.raises(RuacError, match="expected one written by ruac export, or a hub's user/model"):
        Predictor.from_pretrained("runs/model/export")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(RuacError, match=r"holds no config\.json and model\.safetensors"):
        Predictor.from_pretrained("runs/model")


def test_a_folder_needs_no_network_and_its_config_sets_no_argument(folder, monkeypatch):
    """huggingface_hub's own `from_pretrained` hands a config's ``backbone`` to an argument of that name."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("network"))
    monkeypatch.setattr("huggingface_hub.hub_mixin.hf_hub_download", lambda *_, **__: pytest.fail("network"))
    given = []
    monkeypatch.setattr(Predictor, "__init__", lambda self, model, **options: given.append((model, options)))
    Predictor.from_pretrained(folder, device="cpu")
    assert given == [(folder, {"device": "cpu"})]


def test_a_backbone_of_nowhere_cannot_be_saved(nano, tmp_path):
    from ruac.backbone import Backbone

    predictor = Predictor(UncertainSam(Backbone(nano.sam, name="mine"), None), device="cpu")
    with pytest.raises(RuacError, match="backbone mine was not built from a config"):
        predictor.save_pretrained(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_cannot_import_training_gives_the_same_numbers(folder, tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    code = f"""
import sys

class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "accelerate" or name.startswith(("ruac.training", "ruac.fitting", "ruac.studies")):
            raise ImportError(name)

sys.meta_path.insert(0, Closed())
import numpy as np
from ruac import Predictor
predictor = Predictor.from_pretrained({str(folder)!r}, device="cpu")
predictor.set_image(np.load({str(tmp_path / "image.npy")!r}))
answer = predictor.predict([[20, 15]], [1], decomposed=True, alpha=0.2)
given = {{name: value for name, value in vars(answer).items() if value is not None}}
np.savez({str(tmp_path / "answer.npz")!r}, **given)
try:
    import ruac.training
except ImportError:
    print("closed")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "closed\n", done.stderr[-2000:]
    same(SimpleNamespace(**np.load(tmp_path / "answer.npz")), answer(Predictor(folder, device="cpu")))


def test_tensors_of_an_attacker_are_refused(folder, nano, tmp_path):
    from safetensors.torch import save_file

    from ruac.inference.export import load_exported
    from ruac.inference.export_config import read_config

    model = with_head(nano, noise=0.05)
    out = export_model(model, BackboneConfig(image_size=64), tmp_path / "out", with_backbone=True)
    tensors = load_file(out / "model.safetensors")
    save_file(tensors | {"attacker.weight": tensors["head.weight_shape.bias"] + 1}, out / "model.safetensors")
    read_config(out).write(out)
    with pytest.raises(RuacError, match=r"unexpected tensor 'attacker\.weight'"):
        load_exported(out)
