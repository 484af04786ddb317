"""What all fuzz tests share: JSON that is nearly right, damaged bytes, and what a reader may do with them.

A few dozen examples by default; ``RUAC_FUZZ=100000 pytest tests -k fuzz`` draws that many in each test, and others
every time.
"""

import copy
import json
import os
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from ruac.base.errors import RuacError

EXAMPLES = int(os.environ.get("RUAC_FUZZ", "30"))
SECONDS = 1.0  # of processor time in one example: the wall clock would tell of other processes
fuzzed = settings(
    max_examples=EXAMPLES,
    derandomize="RUAC_FUZZ" not in os.environ,
    phases=[Phase.explicit, Phase.generate],  # examples are small as they are; shrinking one takes minutes
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 1e308, -1e-308, float("nan"), float("inf")]),
    st.integers(-4, 70),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a\0b",
            "\ud800",
            "x" * 300,
            "C:\\x",
            "${a}",
            "${oc.env:HOME}",
            "~",
            "0.png",
        ]
    ),
    st.text(max_size=8),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def nearly(draw, content):
    """`content` with a few of its values replaced, dropped or doubled, at any depth."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        change = draw(st.sampled_from(["replace", "replace", "drop", "double"]))
        if change == "replace":
            holder[key] = draw(VALUES)
        elif change == "drop":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[draw(TEXTS)] = copy.deepcopy(holder[key])
    return content


@st.composite
def damaged(draw, whole):
    """The bytes `whole`, cut, overwritten or with more in between; or any bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=64))
    found = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(found)))
        piece = draw(st.binary(max_size=8))
        stop = draw(st.sampled_from([start, start + len(piece), start + len(piece), len(found)]))
        found[start:stop] = piece
    return bytes(found)


@st.composite
def json_bytes(draw, content):
    """A file of nearly that content, or nearly such a file."""
    if draw(st.integers(0, 3)) == 0:
        deep = b"[" * 100_000
        return draw(st.one_of(damaged(json.dumps(content).encode()), st.just(deep), st.just(b'{"a":' * 2000)))
    return json.dumps(draw(nearly(content))).encode("utf-8", "replace")


def survives(read, *arguments, names=""):
    """``read(*arguments)`` succeeds, or raises a `RuacError` of one sentence that names the source; within `SECONDS`.

    Returns what was read, or None.
    """
    start, found, said = time.process_time(), None, None
    try:
        found = read(*arguments)
    except RuacError as error:
        said = str(error)
    assert time.process_time() - start < SECONDS
    if said is not None:
        assert str(names) in said, f"{said[:500]!r} does not name {names}"
        assert len(said) < 5000, f"{len(said)} characters: {said[:200]}"
    return found


def _places(content):
    if isinstance(content, dict):
        inside = list(content.items())
    elif isinstance(content, list):
        inside = list(enumerate(content))
    else:
        return
    for key, value in inside:
        yield content, key
        yield from _places(value)
