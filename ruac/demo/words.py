"""What the page says of an answer."""

from __future__ import annotations

from ruac.backbone.prompts import OBJECT
from ruac.demo.answer import Shown
from ruac.demo.session import Session

START = "Choose a picture, then click on an object in it."
ABOUT = (
    "Left, the mask (blue) with its **inner** (white) and **outer** (yellow) mask, your clicks and, as a ring, where "
    "to click next. Right, where the mask may be wrong: dark is certain, bright a coin toss. Inner and outer masks and "
    "the verdict were fitted on photographs of the source; on other pictures they are an estimate and no promise. "
    "`nano` is small: it exists so that this runs anywhere."
)


def summary(session: Session, shown: Shown | None) -> str:
    """The answer in words, as Markdown."""
    if shown is None:
        return START if session.picture is None else "Click on an object."
    wish, areas = session.settings, [int(mask.sum()) for mask in (shown.inner, shown.mask, shown.outer)]
    verdict = "**Accept.**" if shown.accepted else "**For review.**"
    lines = [
        f"{verdict} Expected IoU {shown.reliability:.2f} (SAM 2 itself says {shown.predicted_iou:.2f}); "
        f"masks accepted at risk {wish.risk:.2f} have a mean of 1 - IoU of at most that, on source pictures.",
        f"Inner, mask, outer: {areas[0]}, {areas[1]}, {areas[2]} pixels at alpha {wish.alpha:.2f}.",
    ]
    if shown.suggestion is None:
        lines.append("No doubt is left that a click could settle.")
    else:
        x, y = shown.suggestion.point
        what = "the object is expected there" if shown.suggestion.label == OBJECT else "background is expected there"
        lines.append(f"Next click: ({x}, {y}), {what}; it may raise the IoU by {shown.suggestion.gain:.3f}.")
    many = "click" if len(session.clicks) == 1 else "clicks"
    lines.append(f"{len(session.clicks)} {many}, answered in {shown.seconds:.2f} s.")
    return "\n\n".join(lines)
