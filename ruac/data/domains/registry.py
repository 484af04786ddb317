"""All cards by name, in the order of the paper's table; the source data sets last."""

from ruac.data.domains.card import Card
from ruac.data.domains.egocentric import EGOCENTRIC
from ruac.data.domains.objects import OBJECTS
from ruac.data.domains.scene_parsing import SCENE_PARSING
from ruac.data.domains.scientific import SCIENTIFIC
from ruac.data.domains.source import SOURCE

CARDS: dict[str, Card] = {card.name: card for card in OBJECTS + SCENE_PARSING + SCIENTIFIC + EGOCENTRIC + SOURCE}
