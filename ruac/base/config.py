"""Typed configs: dataclass defaults, a YAML of differences, and ``key=value`` overrides."""

import difflib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from ruac.base.assets import asset_path, asset_root
from ruac.base.errors import QUOTED, RuacError, brief
from ruac.base.files import at_home, write_text
from ruac.base.kinds import nested_config, settle_kinds, type_hints

T = TypeVar("T")

_MOST_VALUES = 100_000
_REWRITTEN = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp")}


def load_config(cls: type[T], path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> T:
    """Build the dataclass `cls` from its defaults, a YAML file and dotted ``key=value`` strings.

    A YAML file may name another one under ``base``, relative to its own folder, and then holds
    differences from that. A list replaces the base's list as a whole. A path that does not exist
    where it points to, such as ``configs/train/ruac.yaml`` outside a checkout, is the package's own.

    A dataclass may have kinds (`ruac.base.kinds`), and a class variable ``RENAMED``, from keys of older versions to
    those of now, or ``RENAMED_KINDS``. It may define ``validate(self)`` and raise `RuacError` for impossible values;
    it is called on the result and on nested dataclasses, also those in lists.

    Raises `RuacError` for a missing or broken file, a base that leads back to itself, an unknown
    key (naming the nearest valid one) or one of another kind (naming that), a value of the wrong type, or a key
    without a default (``???``) that nobody gave.
    """
    layers = [] if path is None else _read_layers(cls, asset_path(at_home(path)))
    files = len(layers)
    for item in overrides:
        key, separator, _ = item.partition("=")
        if not separator or not key:
            raise RuacError(f"override {item!r}: expected key=value")
        try:
            layers.append((f"override {item!r}", _override(cls, item)))
        except (YAMLError, OmegaConfBaseException, RecursionError) as error:
            raise RuacError(f"override {item!r}: not a readable value: {brief(error)}") from error
    return _build(cls, layers, together=files)


def load_record(cls: type[T], path: str | Path) -> T:
    """Build the dataclass `cls` from a YAML file that may come from anyone: a run's ``config.yaml``, a backbone's.

    Raises as `load_config` does, and for what would reach out of that file: an interpolation, which may read the
    environment, and a ``base``.
    """
    path = asset_path(at_home(path))
    values = OmegaConf.to_container(_read_yaml(cls, path))
    if "base" in values:
        raise RuacError(f"{path}: key 'base': a file that comes with a model may not name another one")
    return config_from(cls, values, str(path))


def config_from(cls: type[T], values: Any, source: str) -> T:
    """Build the dataclass `cls` from a mapping that was read from `source`, which may come from anyone.

    Raises as `load_config` does, and for an interpolation.
    """
    if not isinstance(values, dict):
        raise RuacError(f"{source}: expected a mapping of keys, found {type(values).__name__}")
    try:
        _check_plain(values, source, "")
        layer = OmegaConf.create(values)
    except (OmegaConfBaseException, RecursionError) as error:
        raise RuacError(f"{source}: no values of a config: {brief(error)}") from error
    try:
        return _build(cls, [(source, layer)])
    except RuacError as error:  # of what was not given, or is impossible
        raise error if source in str(error) else RuacError(f"{source}: {error}") from None


def _check_plain(value: Any, source: str, place: str) -> None:
    """Raise `RuacError` for text that OmegaConf would replace: ``${oc.env:HOME}``, at any depth."""
    if isinstance(value, str) and "${" in value:
        raise RuacError(f"{source}: key '{place}': {value[:100]!r}, expected a value as it is, without '${{'")
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inside:
        _check_plain(entry, source, f"{place}[{key}]" if isinstance(value, list) else f"{place}.{key}".lstrip("."))


def save_config(config: Any, path: str | Path) -> None:
    """Write every resolved value of a config dataclass as YAML, atomically."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def _override(cls: type, item: str) -> DictConfig:
    """``key=value`` as a layer. Where text is expected, it is what was typed: ``#``, ``:``, 010 and no are no YAML."""
    key, _, typed = item.partition("=")
    kind = _kind(cls, key.split("."))
    if kind is not None and (kind is str or str in get_args(kind)):
        value: Any = _unquoted(typed)
        if typed == "null" and type(None) in get_args(kind):
            value = None
        elif get_origin(kind) is list:
            # In a list, commas and brackets must mean something, but 010 and no are still text.
            value = yaml.load(typed, Loader=yaml.BaseLoader) if typed.lstrip().startswith("[") else [_unquoted(typed)]
            for index, entry in enumerate(value):
                if not isinstance(entry, str):
                    raise RuacError(f"override {item!r}: {key}[{index}] is a {type(entry).__name__}; quote the text")
        layer = OmegaConf.create({})
        OmegaConf.update(layer, key, value)
        return layer
    layer = OmegaConf.create({})
    OmegaConf.update(layer, key, _parse(kind, typed))
    return layer


def _parse(kind: Any, text: str) -> Any:
    """YAML as OmegaConf reads it, but 010, 1e3 and no stay as they stand where `kind` holds text, at any depth."""
    try:
        loader = get_yaml_loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node)
            _keep_text(kind, node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError) as error:
        raise YAMLError(f"{type(error).__name__}: {error}") from error  # of a number, a tag, thousands of brackets


def _check_size(root: yaml.Node) -> None:
    """Raise `YAMLError` for a text that its aliases blow up: one that holds itself, or ever more before it."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = _MOST_VALUES + 1  # where it holds itself
            parts = [] if isinstance(node, yaml.ScalarNode) else node.value
            flat = (part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,)))
            sizes[id(node)] = 1 + sum(map(size, flat))
        return sizes[id(node)]

    if size(root) > _MOST_VALUES:
        raise YAMLError(f"more than {_MOST_VALUES} values, or one that holds itself")


def _keep_text(kind: Any, node: yaml.Node) -> None:
    if isinstance(node, yaml.ScalarNode):
        if (kind is str or str in get_args(kind)) and get_origin(kind) is not list and node.tag in _REWRITTEN:
            node.tag = "tag:yaml.org,2002:str"
    elif isinstance(node, yaml.SequenceNode):
        for entry in node.value:
            _keep_text(get_args(kind)[0] if get_origin(kind) is list else None, entry)
    elif (cls := nested_config(kind)) is not None:
        hints = type_hints(cls)
        for key, value in node.value:
            merges = key.tag == "tag:yaml.org,2002:merge"  # <<: *other holds fields of this same mapping
            _keep_text(cls if merges else hints.get(key.value), value)


def _kind(cls: type, names: list[str]) -> Any:
    """The type of a dotted key; None where the way leads through no dataclass."""
    for place, name in enumerate(names):
        kind = type_hints(cls).get(name)
        if place + 1 == len(names):
            return kind
        cls = nested_config(kind)
        if cls is None or get_origin(kind) is list:
            return None
    return None


def _unquoted(text: str) -> str:
    """Text in quotes is what YAML makes of it, escapes included, as programs write it; other text is itself."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            value = yaml.safe_load(text)
        except YAMLError:
            return text
        return value if isinstance(value, str) else text
    return text


def _read_layers(cls: type, path: Path) -> list[tuple[str, DictConfig]]:
    """The file and its bases, the last base first."""
    layers, seen = [], set()
    while path is not None:
        if path.resolve() in seen:
            raise RuacError(f"{path}: key 'base' leads back to this file")
        seen.add(path.resolve())
        layer = _read_yaml(cls, path)
        base = layer.pop("base", None)
        if not isinstance(base, str | None):
            raise RuacError(f"{path}: key 'base': expected the path of a YAML file, found {base!r}")
        layers.append((str(path), layer))
        path = None if base is None else _base_path(path.parent, str(at_home(base)))
    return layers[::-1]


def _base_path(folder: Path, base: str) -> Path:
    """`base` beside the file that names it, else among the package's own files."""
    beside = folder / base
    own = asset_root() / base
    return own if not beside.exists() and own.is_file() else beside


def _read_yaml(cls: type, path: Path) -> DictConfig:
    try:
        values = _parse(cls, path.read_text(encoding="utf-8"))
        if not isinstance(values, dict | list | str | None):
            raise RuacError(f"{path}: not a readable YAML file: expected a mapping of keys, found {values!r}")
        layer = OmegaConf.create({} if values is None else values)
    except FileNotFoundError:
        raise RuacError(f"{path}: config file not found") from None
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise RuacError(f"{path}: not a readable YAML file: {brief(error)}") from error
    if not isinstance(layer, DictConfig):
        raise RuacError(f"{path}: expected a mapping of keys, found a list")
    return layer


def _build(cls: type[T], layers: list[tuple[str, DictConfig]], together: int = 0) -> T:
    contents = [(source, OmegaConf.to_container(layer)) for source, layer in layers]
    for source, values in contents:
        _rename(cls, values, source, prefix="")
    kinds = settle_kinds(cls, contents, together)
    cls = kinds.get("", cls)
    merged = OmegaConf.structured(cls)
    for place, kind in kinds.items():
        if place and OmegaConf.get_type(merged, place) is not kind:
            OmegaConf.update(merged, place, OmegaConf.structured(kind), merge=False)
    for source, values in contents:
        _check_keys(cls, values, source, "", kinds)
        try:
            merged = OmegaConf.merge(merged, OmegaConf.create(values))
        except (OmegaConfBaseException, OverflowError, RecursionError) as error:
            key = getattr(error, "full_key", None)
            where = f"{source}: key '{key}'" if key else source
            raise RuacError(f"{where}: {_first_line(error)}") from error
    try:
        config = OmegaConf.to_object(merged)
    except MissingMandatoryValue as error:
        raise RuacError(f"key '{error.full_key}' has no default and was not given") from error
    except (OmegaConfBaseException, OverflowError, RecursionError) as error:
        key = getattr(error, "full_key", None)
        what = _first_line(error)
        raise RuacError(f"key '{key}': {what}" if key else what) from error
    _expand_home(config)
    _validate(config)
    return config


def _rename(cls: type, values: dict, source: str, prefix: str) -> None:
    """Names of older versions become those of now."""
    for old, new in getattr(cls, "RENAMED", {}).items():
        if old in values and new in values:
            raise RuacError(f"{source}: keys '{prefix}{old}' and '{prefix}{new}' are one; expected the second")
        if old in values:
            values[new] = values.pop(old)
    for old, new in getattr(cls, "RENAMED_KINDS", {}).items():
        if values.get(cls.KIND) == old:
            values[cls.KIND] = new
    for key, hint in type_hints(cls).items():
        if is_dataclass(nested := nested_config(hint)):
            entries = values.get(key)
            for entry in entries if isinstance(entries, list) else [entries]:
                if isinstance(entry, dict):
                    _rename(nested, entry, source, f"{prefix}{key}.")


def _check_keys(cls: type, values: dict, source: str, prefix: str, kinds: dict[str, type]) -> None:
    """Look for unknown keys before the merge, whose own message names no alternative."""
    names = [f.name for f in fields(cls)]
    hints = type_hints(cls)
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
            raise RuacError(f"{source}: unknown key '{prefix}{key}'; did you mean '{prefix}{near[0]}'?")
        if get_origin(hints[key]) is list and not any(is_dataclass(t) for t in get_args(hints[key])):
            if not isinstance(value, list):
                raise RuacError(f"{source}: key '{prefix}{key}': {value!r}, expected a list")
            for index, entry in enumerate(value):
                if isinstance(entry, (dict, list)):
                    found = type(entry).__name__
                    raise RuacError(f"{source}: key '{prefix}{key}[{index}]': found a {found}; quote text with a colon")
        nested = kinds.get(f"{prefix}{key}", nested_config(hints[key]))
        if nested is None:
            continue
        if get_origin(hints[key]) is not list:
            entries = {f"{prefix}{key}.": value}
        elif isinstance(value, list):
            entries = {f"{prefix}{key}[{index}].": entry for index, entry in enumerate(value)}
        else:
            raise RuacError(f"{source}: key '{prefix}{key}': expected a list of mappings")
        for deeper, entry in entries.items():
            if isinstance(entry, dict):
                _check_keys(nested, entry, source, deeper, kinds)


def _expand_home(config: Any) -> None:
    """``~/`` at the beginning of a text is the home folder: not every shell sees it behind a ``key=``."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, list):
            setattr(config, field.name, [_home(part) for part in value])
        else:
            setattr(config, field.name, _home(value))
        for part in value if isinstance(value, list) else [value]:
            if is_dataclass(part):
                _expand_home(part)


def _home(value: Any) -> Any:
    return str(at_home(value)) if isinstance(value, str) and value.startswith("~/") else value


def _validate(config: Any) -> None:
    for field in fields(config):
        value = getattr(config, field.name)
        for part in value if isinstance(value, list) else [value]:
            if is_dataclass(part):
                _validate(part)
    if hasattr(config, "validate"):
        config.validate()


def _first_line(error: Exception) -> str:
    """OmegaConf's further lines repeat the key."""
    return (str(error).splitlines() or [type(error).__name__])[0][:QUOTED]
