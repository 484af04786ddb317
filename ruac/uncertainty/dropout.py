"""MC dropout (Gal & Ghahramani, 2016) in the last inner product: a well-known reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.uncertainty.head import ScaledHeadConfig
from ruac.uncertainty.linear import LinearPosterior
from ruac.uncertainty.posterior import inner_product

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded


@dataclass
class DropoutConfig(ScaledHeadConfig):
    """hidden: width of the hidden layer. dropout: probability of dropping a channel. samples: passes whose moments are
    the answer."""

    posterior: str = "dropout"
    hidden: int = 16
    dropout: float = 0.1
    samples: int = 20

    def validate(self) -> None:
        super().validate()
        self.expect_at_least("hidden", 1)
        if not 0 < self.dropout < 1:
            raise RuacError(f"head.dropout: expected a probability in (0, 1), found {self.dropout}")
        self.expect_at_least("samples", 2)


class DropoutHead(nn.Module):
    """``l_k = <drop(f), w_k + B drop(gelu(A m_k))>``, with A and B learned and B zero at first.

    Dropout has to be trained with to mean anything, hence an adapter: SAM 2's own layers have never seen it. Whole
    channels are dropped, so that a mask on f is a mask on the weights, and S passes cost S inner products instead
    of S decoders.

    Training: one pass with a mask of its own per object; the posterior has no spread. Evaluation: the mean and the
    unbiased variance of S passes with masks drawn once and kept, so that an answer does not change when asked for
    again. Masks of objects are not SAM 2's, not even at first.

    Trainable parameters for c = 32, D = 256, hidden 16: 4,656, one more with a logit scale.
    """

    changes_masks = True

    def __init__(self, config: DropoutConfig, *, token_dim: int, channels: int):
        super().__init__()
        self.config = config
        self.first = nn.Linear(token_dim, config.hidden)
        self.last = nn.Linear(config.hidden, channels)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.log_scale = nn.Parameter(torch.zeros(())) if config.logit_scale else None
        kept = torch.rand(config.samples, config.hidden + channels, generator=torch.Generator().manual_seed(0))
        self.register_buffer("kept", self._mask(kept))  # [S, hidden + c]

    def forward(self, decoded: Decoded) -> LinearPosterior:
        with torch.autocast(decoded.pixel_tokens.device.type, enabled=False):
            features = decoded.pixel_tokens.float()  # [N, c, h, w]
            tokens = decoded.mask_tokens.float()  # [N, K, D]
            if self.training:
                kept = self._mask(torch.rand(len(tokens), 1, self.kept.shape[1], device=tokens.device))
            else:
                kept = self.kept[None]
            kept = rearrange(kept, "n s c -> n s 1 c")
            hidden, channels = kept.split([self.config.hidden, features.shape[1]], dim=-1)
            correction = self.last(nn.functional.gelu(self.first(tokens))[:, None] * hidden)
            passes = (decoded.mask_weights.float()[:, None] + correction) * channels  # [N, S, K, c]
            weights = passes.mean(1)
            deviations = (passes - weights[:, None]) / max(passes.shape[1] - 1, 1) ** 0.5  # unbiased; 0 for one pass
            return LinearPosterior(
                mean=inner_product(weights, features),
                pixel=features,
                directions=rearrange(deviations, "n s k c -> n k s c"),
                scale=None if self.log_scale is None else self.log_scale.exp(),
            )

    def _mask(self, uniform: Tensor) -> Tensor:
        return (uniform >= self.config.dropout).float() / (1 - self.config.dropout)
