"""All cards by name, in the order of the paper's table; the source data sets last."""

from ruac.domains.card import Card
from ruac.domains.egocentric import EGOCENTRIC
from ruac.domains.objects import OBJECTS
from ruac.domains.scenes import SCENES
from ruac.domains.scientific import SCIENTIFIC
from ruac.domains.source import SOURCE

CARDS: dict[str, Card] = {card.name: card for card in OBJECTS + SCENES + SCIENTIFIC + EGOCENTRIC + SOURCE}
