"""Strict loading of official SAM 2.1 checkpoints: all tensors or none, and a reason that can be acted on."""

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ruac.backbone.names import OFFICIAL
from ruac.backbone.transformers_names import from_transformers, of_transformers
from ruac.base.errors import RuacError

# The width of the patch embedding and the number of trunk blocks tell the four sizes apart.
_TRUNKS = {(96, 12): "tiny", (96, 16): "small", (112, 24): "base_plus", (144, 48): "large"}
_PATCH_EMBED = "image_encoder.trunk.patch_embed.proj.weight"
_BLOCKS = "image_encoder.trunk.blocks."
# What SAM 2.1 has and SAM 2.0 has not; every other name and shape is the same.
_NEW_IN_2_1 = {"no_obj_embed_spatial", "obj_ptr_tpos_proj.weight", "obj_ptr_tpos_proj.bias"}
_MEMORY = (
    *("memory_attention.", "memory_encoder.", "mask_downsample.", "obj_ptr_proj.", "obj_ptr_tpos_proj."),
    *("maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "no_obj_embed_spatial"),
)
_NAMES_SHOWN = 3

Shapes = Mapping[str, tuple[int, ...]]


def load_official(model: nn.Module, path: str | Path, size: str) -> None:
    """Copy the official checkpoint at `path` into `model`, a SAM 2.1 of `size`; every name and shape must agree.

    Reads ``.pt`` (a state dict under the key ``model``, as published) and ``.safetensors`` (a flat one), also with the
    names of the transformers library; of a checkpoint for single images the model has no memory then. Code inside a
    pickle is never run.

    Raises `RuacError` naming the file when it cannot be read, or holds other tensors than the model (a SAM 2.0
    checkpoint or one of another size is named as such). The model is then left as it was.
    """
    path = Path(path)
    state = read_state(path)
    if of_transformers(state):
        try:
            state = from_transformers(state)
        except RuacError as error:
            raise RuacError(f"{path}: {error}") from error
        drop_memory(model, state)
    load_state(model, state, size, str(path))


def load_state(model: nn.Module, state: Mapping[str, Tensor], size: str, where: str) -> None:
    """Copy a state dict with SAM 2's names that was found at `where`; raises as `load_official` does."""
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if found != expected:
        raise RuacError(f"{where}: {_describe(found, size)}: {_differences(found, expected)}")
    model.load_state_dict(state)


def drop_memory(model: nn.Module, names: Iterable[str]) -> None:
    """Take from an official `model` what only videos need, if nothing of it is among `names`: it would be noise."""
    if not any(name.startswith(_MEMORY) for name in names):
        for part in _MEMORY:
            setattr(model, part.rstrip("."), None)


def read_state(path: str | Path, *, key: str | None = "model") -> dict[str, Tensor]:
    """The tensors of a ``.pt`` or ``.safetensors`` checkpoint, on the CPU. Raises `RuacError` if unreadable.

    key: under which a ``.pt`` keeps its state dict; None where it is one itself.
    """
    path = Path(path)
    if not path.is_file():
        raise RuacError(f"{path}: checkpoint not found; ruac fetch-checkpoint fetches the official ones")
    try:
        _check_head(path)
        if path.suffix == ".safetensors":
            content = {"model": load_file(path, device="cpu")}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            content = {"model": content} if key is None else content
    except RuacError:
        raise
    except OSError as error:
        raise RuacError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL `?([\w.]+)", str(error))
        what = f"it holds code ({code[1]})" if code else "it is no pickle of plain tensors"
        raise RuacError(f"{path}: refused: {what}, expected tensors only") from error
    except Exception as error:  # a damaged pickle can raise almost anything
        raise RuacError(f"{path}: truncated or damaged ({_length(path)}); fetch it again") from error
    return _state_of(content, path)


def identify(shapes: Shapes) -> str | None:
    """The size (tiny, small, base_plus, large) of the official SAM 2 with these tensors; None if it is no such model.

    shapes: tensor name -> shape. Only the trunk is looked at, which SAM 2.0 and 2.1 have in common.
    """
    width = (*shapes.get(_PATCH_EMBED, ()), 0)[0]
    blocks = {name[len(_BLOCKS) :].split(".")[0] for name in shapes if name.startswith(_BLOCKS)}
    return _TRUNKS.get((width, len(blocks)))


def _check_head(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise RuacError(f"{path}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise RuacError(f"{path}: a Git LFS pointer, not the checkpoint itself; fetch it with git lfs pull")
    if head.isascii() and head.decode().replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        start = head.decode().split("\n")[0].strip()[:40]
        raise RuacError(f"{path}: a text file (an error page?) that starts with {start!r}, expected a checkpoint")


def _length(path: Path) -> str:
    length = path.stat().st_size
    for entry in OFFICIAL.values():
        if path.name == entry.file and length != entry.bytes:
            return f"{length} bytes, expected {entry.bytes}"
    return f"{length} bytes"


def _state_of(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        keys = (
            ", ".join(map(str, list(content)[:_NAMES_SHOWN])) if isinstance(content, dict) else type(content).__name__
        )
        raise RuacError(f"{path}: expected a state dict under the key 'model', found {keys or 'nothing'}")
    for name, value in content["model"].items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or name.endswith("num_batches_tracked")):
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise RuacError(f"{path}: {name}: expected a tensor of floats, found {found}")
    return content["model"]


def _describe(found: Shapes, size: str) -> str:
    """One clause on what the file is, before the list of what differs."""
    actual = identify(found)
    if actual is None:
        return f"not an official SAM 2 checkpoint, expected sam2.1 {size}"
    version = "sam2.1" if _NEW_IN_2_1 & found.keys() else "sam2.0"
    if (version, actual) == ("sam2.1", size):
        return f"this is sam2.1 {size}, but not complete or altered"
    return f"this is {version} {actual}, expected sam2.1 {size}"


def _differences(found: Shapes, expected: Shapes) -> str:
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [
        f"{name} {list(found[name])} for {list(expected[name])}"
        for name in expected
        if name in found and found[name] != expected[name]
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return "; ".join(_count(kind, names) for kind, names in kinds.items() if names)


def _count(kind: str, names: list[str]) -> str:
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_NAMES_SHOWN])}{more})"
