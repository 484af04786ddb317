"""The cards as a page: docs/domains.md."""

from ruac.data.domains.card import GROUPS, MEMORY
from ruac.data.domains.registry import CARDS

HEAD = """# Domains

One adapter per data set reads the native download, unchanged. This page is made from the cards by
`ruac prepare-domain --cards`; a test keeps it true.

```
ruac prepare-domain NAME ROOT                      # what was found, sample panels
ruac prepare-domain NAME ROOT --convert            # and the common COCO folder
ruac prepare-domain NAME ROOT --protocol sam1      # the SAM paper's splits
```

ROOT is the unpacked download, a folder up to two levels around it, or one of its own folders (then said).
`ruac.data.domains.open_domain(NAME, ROOT)`
opens it as a data set of the package.

- **Objects.** Masks may overlap and are kept at any size; objects without a pixel are dropped and counted.
  An object is (domain, split, image, object): the image's id is its split and its path below the image folder,
  the object's id is the one that the data set gives, or its number in its file. Neither depends on the machine,
  on the order of files, or on where ROOT lies.
- **Large sets.** Above 15,000 masks, images are drawn at random until they hold 10,000 (SAM paper, app. D.1), in
  the order of a hash of seed and id. Pictures are looked into in that order and only until the set is known to be
  that large: opening costs about 15,000 masks, however large the download. The SAM paper's own samples are not
  published: counts agree, images do not.
- **Opening.** Maps of object numbers are decoded once at every opening, to know their objects; nothing is written
  into the download. `--convert` makes a folder that opens at once, with the drawn images listed in `manifest.json`.
- **Format.** "checked against" names what the folders, file names and codes were read in, and says where memory had to
  do; "inferred" is what no document says. "memory" alone means that no description of the format was found. Only
  where real files are named was an adapter tried on them: run the check before trusting a number.
  The splits of `sam1` and the counts are those of the SAM paper's table 7.
"""


def cards_page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group in GROUPS:
        parts.append(f"## {group}\n")
        for card in (card for card in CARDS.values() if card.group == group):
            splits = {protocol: " + ".join(names) for protocol, names in card.splits.items()}
            same = len(set(splits.values())) == 1
            shown = splits["ruac"] if same else ", ".join(f"{names} ({protocol})" for protocol, names in splits.items())
            rows = {
                "page": card.page or "not confirmed",
                "licence": card.licence,
                "size": card.size,
                "version": card.version,
                "tree": f"`{card.tree}`",
                "split": shown,
                "object": card.rule,
                "SAM paper": "not used" if card.sam is None else "{:,} images, {:,} masks".format(*card.sam),
                "checked against": f"**{MEMORY}**" if card.verified == MEMORY else card.verified,
            }
            lines = "".join(f"| {key} | {value} |\n" for key, value in rows.items())
            parts.append(f"### `{card.name}`: {card.title}\n\n| | |\n|---|---|\n{lines}")
    return "\n".join(parts)
