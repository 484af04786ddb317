"""How long a visitor of the demo waits for an answer, with `nano`."""

from __future__ import annotations

from itertools import count

from ruac.demo.answer import Models
from ruac.demo.draw import draw
from ruac.demo.gallery import PICTURES, picture
from ruac.demo.session import Session
from ruac.demo.words import summary
from ruac.studies.benchmark.rows import Row, fastest

LIMIT = 1.0  # seconds, from a click to pictures and words


def run(*, repeats: int) -> list[Row]:
    """A first click on a picture, which is encoded for it, a later one, and one with a second look.

    Drawing and words included. Ratio: CPU seconds to `LIMIT`, which more than one idle core cannot make worse. What a
    browser adds, fetching and showing two pictures, is not in it.
    """
    models, numbers, image = Models("cpu"), count(), picture(next(iter(PICTURES)))
    later = Session().showing(image).clicked(190, 200, 1)

    def answer(session: Session) -> None:
        shown = models.ask(session)
        draw(session, shown)
        summary(session, shown)

    def first() -> None:
        changed = image.copy()
        changed[0, 0] = next(numbers) % 256  # a picture that has not been encoded before
        answer(Session().showing(changed).clicked(190, 200, 1))

    def again(look: bool) -> None:  # near the first click: a window around far ones would be the whole picture
        answer(later.clicked(150 + next(numbers) % 80, 260, 0).set_to(look=look))

    again(True)  # everything is loaded now
    works = {
        "first click, picture encoded": first,
        "later click": lambda: again(False),
        "later click, second look": lambda: again(True),
    }
    seconds = fastest(works, repeats=repeats)
    return [Row(f"demo: {name}", value, value / LIMIT, "<= 1.0") for name, value in seconds.items()]
