"""Official checkpoints load completely or not at all, with a one-line reason."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ruac.backbone.checkpoint import load_official, read_state
from ruac.backbone.sam2_parts import build_official
from ruac.base.errors import RuacError


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_official("tiny", image_size=64)


@pytest.fixture
def state(model) -> dict[str, torch.Tensor]:
    """Random weights, other than the model's."""
    return {name: tensor + 1 for name, tensor in model.state_dict().items()}


@pytest.fixture
def refused(model, tmp_path):
    """Save `content`, expect a refusal, and return its message. The model must not change."""

    def check(content: object, name: str = "model.pt") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with pytest.raises(RuacError) as info:
            load_official(model, path, "tiny")
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        message = str(info.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return message.removeprefix(f"{path}: ")

    return check


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_every_tensor_is_loaded(suffix, state, tmp_path):
    path = tmp_path / f"sam2.1_hiera_tiny.{suffix}"
    if suffix == "pt":
        torch.save({"model": state}, path)
    else:
        save_file(state, path)
    fresh = build_official("tiny", image_size=64)
    load_official(fresh, path, "tiny")
    assert all(torch.equal(tensor, state[name]) for name, tensor in fresh.state_dict().items())


def test_missing_unexpected_and_misshapen_tensors_are_listed(state, refused):
    for name in list(state)[-5:]:
        del state[name]
    state["extra"] = torch.zeros(3)
    state["no_obj_ptr"] = torch.zeros(2, 256)
    message = refused({"model": state})
    assert message.startswith("this is sam2.1 tiny, but not complete or altered: 5 missing (")
    assert "; 1 unexpected (extra); 1 of another shape (no_obj_ptr [2, 256] for [1, 256])" in message
    assert message.count(", ...") == 1


def test_sam_2_0_is_named(state, refused):
    for name in ("no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"):
        del state[name]
    assert refused({"model": state}).startswith("this is sam2.0 tiny, expected sam2.1 tiny: 3 missing (")


def test_another_size_is_named(refused):
    # Expanded zeros: the shapes of the whole model in a small file.
    small = {name: torch.zeros(()).expand(t.shape) for name, t in build_official("small").state_dict().items()}
    assert refused({"model": small}).startswith("this is sam2.1 small, expected sam2.1 tiny: 2 missing (")
    del small["no_obj_embed_spatial"], small["obj_ptr_tpos_proj.weight"], small["obj_ptr_tpos_proj.bias"]
    assert refused({"model": small}).startswith("this is sam2.0 small, expected sam2.1 tiny: 5 missing (")


def test_other_models_are_named(refused):
    assert refused({"model": {"conv.weight": torch.zeros(1)}}).startswith("not an official SAM 2 checkpoint")
    converted = {"model": {"vision_encoder.backbone.pos_embed": torch.zeros(1)}}
    assert refused(converted).startswith("a checkpoint of transformers without ")


def test_contents_that_are_no_state_dict(state, refused):
    assert "under the key 'model', found weights, step" in refused({"weights": state, "step": 1})
    assert "under the key 'model', found Tensor" in refused(torch.zeros(1))
    assert "step: expected a tensor of floats, found int" in refused({"model": {"step": 1}})
    assert "w: expected a tensor of floats, found torch.int8" in refused({"model": {"w": torch.zeros(1).char()}})


@pytest.mark.parametrize("keep", [100, 0.5, -1])
def test_truncated_pt(keep, state, refused, tmp_path):
    torch.save({"model": {"no_obj_ptr": state["no_obj_ptr"]}}, tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    part = whole[: int(keep * len(whole)) if isinstance(keep, float) else keep]
    assert refused(part) == f"truncated or damaged ({len(part)} bytes); fetch it again"
    expected = f"truncated or damaged ({len(part)} bytes, expected 156008466); fetch it again"
    assert refused(part, "sam2.1_hiera_tiny.pt") == expected


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_truncated_safetensors(keep, state, refused, tmp_path):
    save_file({"no_obj_ptr": state["no_obj_ptr"]}, tmp_path / "whole.safetensors")
    assert "truncated or damaged" in refused((tmp_path / "whole.safetensors").read_bytes()[:keep], "model.safetensors")


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_text_files(name, refused):
    page = b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n" * 10
    assert "a text file (an error page?) that starts with '<!DOCTYPE html>'" in refused(page, name)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    assert "a Git LFS pointer" in refused(pointer, name)
    assert refused(b"", name) == "the file is empty"


class Payload:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("wrap", [lambda p: {"model": p}, lambda p: pickle.dumps(p, 2), pickle.dumps])
def test_code_is_never_run(wrap, refused, tmp_path):
    victim = tmp_path / "victim"
    pickle.loads(pickle.dumps(Payload(victim)))
    assert victim.exists()  # the payload works
    victim.unlink()
    assert refused(wrap(Payload(victim))).startswith("refused: it ")
    assert not victim.exists()


def test_random_bytes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        path = tmp_path / "model.pt"
        path.write_bytes(bytes(torch.randint(0, 256, (200,), generator=generator).tolist()))
        with pytest.raises(RuacError, match=r"model\.pt: (refused|truncated or damaged)"):
            read_state(path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(RuacError, match=r"checkpoint not found; ruac fetch-checkpoint"):
            read_state(path)
