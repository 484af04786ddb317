"""Native downloads of the 23 zero-shot domains and of MOSE, DAVIS and COCO."""

from ruac.data.domains.card import PROTOCOLS, Card
from ruac.data.domains.dataset import NativeDataset, open_domain
from ruac.data.domains.registry import CARDS

__all__ = ["CARDS", "PROTOCOLS", "Card", "NativeDataset", "open_domain"]
