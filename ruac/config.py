"""Typed configs: dataclass defaults, a YAML of differences, and ``key=value`` overrides."""

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ruac.errors import RuacError
from ruac.files import write_text

T = TypeVar("T")


def load_config(cls: type[T], path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> T:
    """Build the dataclass `cls` from its defaults, a YAML file and dotted ``key=value`` strings.

    A dataclass may define ``validate(self)`` and raise `RuacError` for impossible values; it is
    called on the result and on nested dataclasses.

    Raises `RuacError` for a missing or broken file, an unknown key (naming the nearest valid
    one), or a value of the wrong type.
    """
    layers = []
    if path is not None:
        layers.append((str(path), _read_yaml(path)))
    for item in overrides:
        key, separator, _ = item.partition("=")
        if not separator or not key:
            raise RuacError(f"override {item!r}: expected key=value")
        layers.append((f"override {item!r}", OmegaConf.from_dotlist([item])))
    merged = OmegaConf.structured(cls)
    for source, layer in layers:
        _check_keys(cls, layer, source, prefix="")
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            key = getattr(error, "full_key", None) or "?"
            raise RuacError(f"{source}: key '{key}': {str(error).splitlines()[0]}") from error
    config = OmegaConf.to_object(merged)
    _validate(config)
    return config


def save_config(config: Any, path: str | Path) -> None:
    """Write every resolved value of a config dataclass as YAML, atomically."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def _read_yaml(path: str | Path) -> DictConfig:
    try:
        layer = OmegaConf.load(path)
    except FileNotFoundError:
        raise RuacError(f"{path}: config file not found") from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise RuacError(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(layer, DictConfig):
        raise RuacError(f"{path}: expected a mapping of keys, found a list")
    return layer


def _check_keys(cls: type, layer: DictConfig, source: str, prefix: str) -> None:
    names = [f.name for f in fields(cls)]
    hints = get_type_hints(cls)
    for key in layer:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
            raise RuacError(f"{source}: unknown key '{prefix}{key}'; did you mean '{prefix}{near[0]}'?")
        nested = next((t for t in (hints[key], *get_args(hints[key])) if is_dataclass(t)), None)
        if OmegaConf.is_missing(layer, key):
            continue
        value = layer._get_node(key)
        if nested and isinstance(value, DictConfig) and is_dataclass(hints[key]):
            _check_keys(nested, value, source, prefix=f"{prefix}{key}.")


def _validate(config: Any) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            _validate(value)
    if hasattr(config, "validate"):
        config.validate()
