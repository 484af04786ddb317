"""Configs of several kinds: the value of one key says which dataclass the other keys belong to.

Such a config is a dataclass with the class variables ``KIND``, the key that names the kind; ``KINDS``, from kinds to
their dataclasses, which derive from it, the first of them the default; and ``FLAT``, keys that were recorded with
every kind while all had one dataclass.
"""

from __future__ import annotations

import difflib
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_args, get_type_hints

from ruac.base.errors import RuacError

Layers = list[tuple[str, Any]]
"""Where values were read, and the values; later ones win."""


def type_hints(cls: type) -> dict[str, Any]:
    """Types of all fields, those of every kind included."""
    found: dict[str, Any] = {}
    for kind in (cls, *getattr(cls, "KINDS", {}).values()):
        found = get_type_hints(kind) | found
    return found


def nested_config(hint: Any) -> type | None:
    """The dataclass that a field of this type holds, alone, as an option or in a list."""
    return next((t for t in (hint, *get_args(hint)) if is_dataclass(t)), None)


def settle_kinds(cls: type, layers: Layers, together: int, prefix: str = "") -> dict[str, type]:
    """The dataclass of each config in `cls` that has kinds, by its dotted place; "" is `cls` itself.

    Keys of other kinds leave the layers: those which earlier layers set for another kind, those of a flat record of
    an older version, and defaults. together: layers from this number on speak at once. Raises `RuacError` for an
    unknown kind, and for any other key of another kind, naming the kinds that have it.
    """
    if hasattr(cls, "KINDS"):
        return {prefix.removesuffix("."): _settle(cls, layers, together, prefix)}
    found = {}
    for name, hint in type_hints(cls).items():
        if is_dataclass(hint):
            inner = [(source, values.get(name)) for source, values in layers if isinstance(values, dict)]
            found |= settle_kinds(hint, inner, together, f"{prefix}{name}.")
    return found


def _settle(cls: Any, layers: Layers, together: int, prefix: str) -> type:
    kind, begun = next(iter(cls.KINDS)), 0
    for number, (source, values) in enumerate(layers):
        if isinstance(values, dict) and cls.KIND in values:
            named = values[cls.KIND]
            if not isinstance(named, str) or named not in cls.KINDS:
                near = difflib.get_close_matches(str(named), cls.KINDS, n=1, cutoff=0.0)[0]
                raise RuacError(
                    f"{source}: {prefix}{cls.KIND}: expected {' or '.join(cls.KINDS)}, found {named!r}; "
                    f"did you mean {near!r}?"
                )
            if named != kind:
                kind, begun = named, min(number, together)
    for number, (source, values) in enumerate(layers):
        if not isinstance(values, dict):
            continue
        lapsed = number < begun or set(cls.FLAT) <= values.keys()
        for key in list(values):
            owners = {name: defaults for name, c in cls.KINDS.items() if key in (defaults := _defaults(c))}
            if not owners or kind in owners:
                continue  # unknown keys are found later
            if not lapsed and values[key] != next(iter(owners.values()))[key]:
                own = ", ".join(name for name in _defaults(cls.KINDS[kind]) if name != cls.KIND) or "no other keys"
                raise RuacError(
                    f"{source}: key '{prefix}{key}' belongs to {cls.KIND} {' or '.join(owners)}, not to {kind}, "
                    f"which has {own}"
                )
            del values[key]
    return cls.KINDS[kind]


def _defaults(cls: type) -> dict[str, Any]:
    return {f.name: f.default if f.default is not MISSING else None for f in fields(cls)}
