"""Predictors by folder or hub id: what huggingface_hub's mixin has to know of an export.

The mixin brings `push_to_hub`. What it does by itself on the way in and out is replaced: it would hand keys of a
downloaded config to the constructor, and take a saved folder apart before the new one is complete.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruac.base.errors import RuacError, brief
from ruac.base.files import atomic_folder, write_text
from ruac.conformal.bounds import NAME as BOUNDS
from ruac.inference.bounds import bounds_path
from ruac.inference.export import CALIBRATOR, CONFIG, WEIGHTS, described, write_export
from ruac.inference.export_config import ExportConfig, read_config
from ruac.inference.model_card import CARD, model_card
from ruac.inference.reliability import NAME as RELIABILITY

try:
    from huggingface_hub import ModelHubMixin
except ImportError:  # an extra; folders need none of it

    class ModelHubMixin:  # type: ignore[no-redef]
        def push_to_hub(self, *_: Any, **__: Any) -> str:
            raise RuacError("push_to_hub: needs huggingface_hub; pip install 'ruac[hub]'")


if TYPE_CHECKING:
    from huggingface_hub import ModelCard

    from ruac.inference.model import UncertainSam

FILES = (CONFIG, WEIGHTS, CALIBRATOR, RELIABILITY, BOUNDS)
_ID = re.compile(r"[\w.-]+/[\w.-]+")


class Pretrained(ModelHubMixin):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` of a `Predictor`."""

    model: UncertainSam
    _folder: Path | None  # that it was loaded from
    _files_at: dict[str, Path | None]  # of `RELIABILITY` and `BOUNDS`

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> Any:
        """A predictor from an exported folder, or from a hub's ``user/model``.

        A folder needs no network. A hub's model is taken from the cache where it is complete; to look for a newer one:
        force_download. options: of the constructor. The files need not be trusted, see `load_exported`. Raises
        `RuacError` for what is neither a folder nor on the hub, and for an export that does not load.
        """
        return cls._from_pretrained(
            model_id=str(pretrained_model_name_or_path),
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            **options,
        )

    @classmethod
    def _from_pretrained(
        cls, *, model_id, revision, cache_dir, force_download, local_files_only, token, **options: Any
    ) -> Any:
        if Path(model_id).is_dir():
            return cls(Path(model_id), **options)
        how = {"revision": revision, "cache_dir": cache_dir, "token": token}
        return cls(_fetched(model_id, force_download, local_files_only, how), **options)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        with_backbone: bool = True,
        model_card_kwargs: dict[str, Any] | None = None,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        config: None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write model, card, and the files of ``fit-reliability`` and ``conformal`` that it uses as an export.

        with_backbone: False leaves the backbone's weights out. model_card_kwargs: metadata of the card, such as
        ``{"license": "apache-2.0"}``. The others are huggingface_hub's; config is no choice here. A new folder appears
        whole or not at all. Raises `RuacError` as `export_model` does, and for a backbone that cannot be built again.
        """
        out = Path(save_directory)
        with atomic_folder(out, last=CONFIG) as folder:
            self._save_pretrained(folder, with_backbone=with_backbone)
            write_text(folder / CARD, model_card(read_config(folder), model_card_kwargs))
            stale = {*FILES} - {path.name for path in folder.iterdir()}
        for name in stale:  # of the model that was here before
            (out / name).unlink(missing_ok=True)
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or out.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def _save_pretrained(self, save_directory: Path, *, with_backbone: bool = True) -> None:
        write_export(self.model, self._described(with_backbone), save_directory)
        for name, place in self._files_at.items():
            path = place and (bounds_path(place) if name == BOUNDS else place / name if place.is_dir() else place)
            if path and path.is_file():
                shutil.copyfile(path, save_directory / name)

    def generate_model_card(self, **metadata: Any) -> ModelCard:
        """The card of `save_pretrained`, with these keys in its header."""
        from huggingface_hub import ModelCard

        return ModelCard(model_card(self._described(True), metadata))

    def _described(self, with_backbone: bool) -> ExportConfig:
        body = self.model.backbone
        if body.config is None:
            raise RuacError(f"save_pretrained: backbone {body.name} was not built from a config, and cannot be again")
        spec = replace(body.config, image_size=body.image_size)
        record = {} if self._folder is None else read_config(self._folder).record
        return described(self.model, spec, with_backbone=with_backbone, record=record)


def _fetched(model_id: str, force: bool, offline: bool, how: dict[str, Any]) -> Path:
    """The folder of a hub's model in the cache, which the network is asked for only if it is not complete."""
    if not _ID.fullmatch(model_id):
        raise RuacError(f"{model_id}: no such folder; expected one written by ruac export, or a hub's user/model")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        raise RuacError(f"{model_id}: no such folder, and hubs need: pip install 'ruac[hub]'") from None
    reason = ""
    for local in [True] if offline else [False] if force else [True, False]:
        how |= {"allow_patterns": list(FILES), "local_files_only": local, "force_download": force}
        try:
            folder = Path(snapshot_download(model_id, **how))
        except (OSError, ValueError, HfHubHTTPError) as error:
            reason = brief(error)
            continue
        if all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
            return folder
        reason = f"holds no {CONFIG} and {WEIGHTS}"
    raise RuacError(f"{model_id}: no such folder, and not from the hub: {reason}")
