"""The local temperature in one pass over the pixels, compiled for the CPU: what `LocalTemperature` says, some pixels at
a time.

Whole-tensor operations write twelve maps of inputs and 64 of hidden units for every object, which have left the cache
before they are read again. Here a hundred pixels go through all layers before the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import erf
from torch import Tensor, nn

from ruac.base.compiled import FAST, compiled, in_parts
from ruac.uncertainty.local_temperature import INPUTS, SHARED, LocalTemperature

_BLOCK = 256  # pixels
_LANES = 8  # hidden units that are added up at a time
_ORDER = [k for part in (False, True) for k, name in enumerate(INPUTS) if (name in SHARED) is part]

Layers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.float32]


def _ratio(function: Callable[[np.ndarray], np.ndarray], most: float, over: int, under: int) -> tuple[tuple, tuple]:
    """An odd function within ``[-most, most]`` as ``x P(x^2) / Q(x^2)``: coefficients of rising powers up to `over` and
    `under`, by least squares of ``x P - f Q``, again and again with the last Q as weight."""
    x = most * np.cos(np.linspace(0, math.pi / 2, 2000, endpoint=False))
    y, weight = function(x), np.ones_like(x)
    powers = (x / most)[:, None] ** np.arange(0, 2 * max(over, under) + 1, 2)
    for _ in range(20):
        columns = np.concatenate([x[:, None] * powers[:, : over + 1], -y[:, None] * powers[:, 1 : under + 1]], axis=1)
        found = np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0]
        p, q = found[: over + 1], np.concatenate([[1.0], found[over + 1 :]])
        weight = 1 / (powers[:, : under + 1] @ q)
    p, q = ([np.float32(c / most ** (2 * k)) for k, c in enumerate(parts)] for parts in (p, q))
    return tuple(p), tuple(q)


# Beyond these bounds either function is as good as 1. The first is within 5e-7, the second within 3e-6.
_TANH_MOST, _NORMAL_MOST = np.float32(8.0), np.float32(5.0)
_TANH_OVER, _TANH_UNDER = _ratio(np.tanh, 8.0, 6, 3)
_NORMAL_OVER, _NORMAL_UNDER = _ratio(lambda x: erf(x / math.sqrt(2)), 5.0, 4, 3)


def _tanh_of(x):
    x = x if x < _TANH_MOST else (_TANH_MOST if x > _TANH_MOST else x)  # what is no number stays none
    x = x if x > -_TANH_MOST else (-_TANH_MOST if x < -_TANH_MOST else x)
    s = x * x
    a0, a1, a2, a3, a4, a5, a6 = _TANH_OVER
    b0, b1, b2, b3 = _TANH_UNDER
    over = a0 + s * (a1 + s * (a2 + s * (a3 + s * (a4 + s * (a5 + s * a6)))))
    return x * over / (b0 + s * (b1 + s * (b2 + s * b3)))


def _gelu_of(x):
    c = x if x < _NORMAL_MOST else (_NORMAL_MOST if x > _NORMAL_MOST else x)
    c = c if c > -_NORMAL_MOST else (-_NORMAL_MOST if c < -_NORMAL_MOST else c)
    s = c * c
    a0, a1, a2, a3, a4 = _NORMAL_OVER
    b0, b1, b2, b3 = _NORMAL_UNDER
    over, under = a0 + s * (a1 + s * (a2 + s * (a3 + s * a4))), b0 + s * (b1 + s * (b2 + s * b3))
    return np.float32(0.5) * x * (np.float32(1) + c * over / under)


_tanh, _gelu = compiled(_tanh_of, fastmath=FAST), compiled(_gelu_of, fastmath=FAST)


_KNOWN: WeakKeyDictionary[LocalTemperature, tuple[list, Layers]] = WeakKeyDictionary()


def layers_of(module: LocalTemperature) -> Layers:
    """Weights of the three layers, kept until one changes. The first takes inputs as they are, those that pixels share
    last; hidden layers are filled up with zeros."""
    state = [(weights.data_ptr(), weights._version) for weights in module.parameters()]
    if (known := _KNOWN.get(module)) is None or known[0] != state:
        known = _KNOWN[module] = state, _layers(module.network, module.middle, module.spread)
    return known[1]


def _layers(network: nn.Sequential, middle: Tensor, spread: Tensor) -> Layers:
    first, second, last = (network[k] for k in (0, 2, 4))
    inward = first.weight.detach().float()[..., 0, 0] / spread.flatten()
    bias = first.bias - inward @ middle.flatten()
    more = -len(bias) % _LANES
    parts = (
        (inward[:, _ORDER], (0, 0, 0, more)),
        (bias, (0, more)),
        (second.weight[..., 0, 0], (0, more, 0, more)),
        (second.bias, (0, more)),
        (last.weight[0, :, 0, 0], (0, more)),
    )
    filled = [(F.pad(weights, pads) if more else weights).detach().float().contiguous() for weights, pads in parts]
    return *(weights.numpy() for weights in filled), np.float32(last.bias.item())


def box_means(maps: Tensor, side: int) -> Tensor:
    """Means of maps ``float32 [N, 1, h, w]`` over squares of odd `side` around each pixel, of what lies inside."""
    maps = maps.detach().contiguous()
    out = torch.empty_like(maps)
    _box_means(maps[:, 0].numpy(), side // 2, out[:, 0].numpy())
    return out


def seen_answer(logits: Tensor, index: Tensor, iou: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of token ``index[n]`` the logit and its entropy, ``[N, 1, h, w]``, and what its pixels share,
    ``[N, len(SHARED)]``."""
    own = logits.detach().float()[torch.arange(len(index)), index][:, None].contiguous()
    entropy, shared = torch.empty_like(own), torch.empty(len(own), len(SHARED))
    predicted = iou.detach().float().gather(1, index[:, None])[:, 0].contiguous()
    flat = [x.view(len(own), -1).numpy() for x in (own, entropy)]
    _seen_answer(flat[0], predicted.numpy(), flat[1], shared.numpy())
    return own, entropy, shared


def log_scale(layers: Layers, logits: Tensor, own: Tensor, near: list[Tensor], shared: Tensor) -> Tensor:
    """``float32 [N, 1, h, w]``, see `LocalTemperature.forward`.

    logits: ``[N, 4, h, w]``. own: that of the token. near: two maps ``[N, 1, h, w]``, its entropy's neighbourhoods.
    shared: ``[N, len(SHARED)]``.
    """
    count, tokens, height, width = logits.shape
    out = torch.empty(count, 1, height, width)
    answers = logits.detach().float().reshape(count, tokens, -1).contiguous().numpy()
    maps = [x.detach().float().reshape(count, -1).contiguous().numpy() for x in (own, *near)]
    rest = shared.detach().float().contiguous().numpy()

    def work(start: int, stop: int) -> None:
        _log_scale(*layers, answers, *maps, rest, start, stop, out.view(count, -1).numpy())

    in_parts(work, count * math.ceil(height * width / _BLOCK))
    return out


def _answers(own, predicted, entropy, shared):
    for n in range(len(own)):
        undecided, sides = 0.0, 0.0
        for b in range(own.shape[1]):
            t = _tanh(np.float32(0.5) * own[n, b])
            e = np.float32(1) - t * t
            entropy[n, b] = e
            undecided += e
            sides += t
        share = (1 + sides / own.shape[1]) / 2
        shared[n, 0] = math.tanh(undecided / own.shape[1] / (share + 0.01))
        shared[n, 1] = math.log(share + 1e-4)
        shared[n, 2] = predicted[n]


def _boxes(maps, reach, out):
    count, height, width = maps.shape
    down, across = np.zeros((height + 1, width), np.float32), np.zeros(width + 1, np.float32)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                down[i + 1, j] = down[i, j] + maps[n, i, j]
        for i in range(height):
            top, bottom = max(i - reach, 0), min(i + reach + 1, height)
            for j in range(width):
                across[j + 1] = across[j] + (down[bottom, j] - down[top, j])
            for j in range(width):
                left, right = max(j - reach, 0), min(j + reach + 1, width)
                out[n, i, j] = (across[right] - across[left]) / np.float32((bottom - top) * (right - left))


def _blocks(inward, bias, between, second, last, end, logits, chosen, near, wide, shared, start, stop, out):
    """Blocks of pixels `start` to `stop`, counted through all objects."""
    one, half, quarter = np.float32(1), np.float32(0.5), np.float32(0.25)
    hidden, pixels = len(bias), logits.shape[2]
    each = (pixels + _BLOCK - 1) // _BLOCK
    x, h, g = (
        np.empty((9, _BLOCK), np.float32),
        np.empty((hidden, _BLOCK), np.float32),
        np.empty((2, _BLOCK), np.float32),
    )
    for block in range(start, stop):
        n, first = block // each, block % each * _BLOCK
        size = min(_BLOCK, pixels - first)
        own, single = chosen[n, first : first + size], logits[n, 0, first : first + size]
        c1, c2, c3 = (
            logits[n, 1, first : first + size],
            logits[n, 2, first : first + size],
            logits[n, 3, first : first + size],
        )
        for b in range(size):
            t = _tanh(half * own[b])
            x[0, b] = _tanh(quarter * own[b])
            x[1, b] = abs(t)
            x[2, b] = one - t * t
            x[3, b] = near[n, first + b]
            x[4, b] = wide[n, first + b]
            x[5, b] = _tanh(quarter * single[b])
            u, v, w = c1[b], c2[b], c3[b]
            high, low = u if u > v else v, v if u > v else u
            x[6, b] = _tanh(quarter * (w if w > high else high))
            x[7, b] = _tanh(quarter * (w if w < low else low))
            p, q, r = _tanh(half * u), _tanh(half * v), _tanh(half * w)
            mean = (p + q + r) * np.float32(1 / 3)
            # two deviations of probabilities, which are (1 + t) / 2, with a divisor of two
            x[8, b] = np.sqrt(half * ((p - mean) * (p - mean) + (q - mean) * (q - mean) + (r - mean) * (r - mean)))
        for k in range(hidden):
            w0, w1, w2, w3, w4 = inward[k, 0], inward[k, 1], inward[k, 2], inward[k, 3], inward[k, 4]
            w5, w6, w7, w8 = inward[k, 5], inward[k, 6], inward[k, 7], inward[k, 8]
            v = bias[k] + inward[k, 9] * shared[n, 0] + inward[k, 10] * shared[n, 1] + inward[k, 11] * shared[n, 2]
            row = h[k]
            for b in range(size):
                a = v + w0 * x[0, b] + w1 * x[1, b] + w2 * x[2, b] + w3 * x[3, b] + w4 * x[4, b]
                row[b] = _gelu(a + w5 * x[5, b] + w6 * x[6, b] + w7 * x[7, b] + w8 * x[8, b])
        result = out[n, first : first + size]
        result[:] = end
        for k in range(0, hidden, 2):  # two units at a time read what both need once
            g[0], g[1] = second[k], second[k + 1]
            g0, g1 = g[0], g[1]
            for j in range(0, hidden, 4):
                u0, u1, u2, u3 = between[k, j], between[k, j + 1], between[k, j + 2], between[k, j + 3]
                v0, v1 = between[k + 1, j], between[k + 1, j + 1]
                v2, v3 = between[k + 1, j + 2], between[k + 1, j + 3]
                for b in range(size):
                    h0, h1, h2, h3 = h[j, b], h[j + 1, b], h[j + 2, b], h[j + 3, b]
                    g0[b] += u0 * h0 + u1 * h1 + u2 * h2 + u3 * h3
                    g1[b] += v0 * h0 + v1 * h1 + v2 * h2 + v3 * h3
            u, v = last[k], last[k + 1]
            for b in range(size):
                result[b] += u * _gelu(g0[b]) + v * _gelu(g1[b])


_log_scale = compiled(_blocks, fastmath=FAST)
_box_means = compiled(_boxes)
_seen_answer = compiled(_answers, fastmath=FAST)
