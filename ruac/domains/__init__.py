"""Native downloads of the 23 zero-shot domains and of MOSE, DAVIS and COCO."""

from ruac.domains.card import PROTOCOLS, Card
from ruac.domains.dataset import NativeDataset, open_domain
from ruac.domains.registry import CARDS

__all__ = ["CARDS", "PROTOCOLS", "Card", "NativeDataset", "open_domain"]
