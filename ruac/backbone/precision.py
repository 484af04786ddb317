"""Which precision weights may have."""

from itertools import chain

from torch import nn

from ruac.base.errors import RuacError


def expect_full_precision(module: nn.Module, name: str) -> None:
    """Raise `RuacError` for weights of half precision: heads compute in float32, also under autocast."""
    for values in chain(module.parameters(), module.buffers()):
        if values.is_floating_point() and values.itemsize < 4:
            kind = str(values.dtype).removeprefix("torch.")
            raise RuacError(f"{name}: weights are {kind}, expected float32; for half precision use torch.autocast")
