"""A sweep's result folder in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ruac.base.files import write_text
from ruac.evaluation.report.bounds import bounds_table
from ruac.evaluation.report.curves import curve_charts
from ruac.evaluation.report.mask_scores import mask_scores
from ruac.evaluation.report.overlay import uncertainty_colors
from ruac.evaluation.report.overview import metric_charts, radar
from ruac.evaluation.report.panels import Panel, load_panels
from ruac.evaluation.report.robustness import robust_groups, robustness
from ruac.evaluation.report.statements import statements
from ruac.evaluation.report.tables import glance, region_table
from ruac.evaluation.results.load import Results, load_results
from ruac.evaluation.results.names import COLUMNS, DOTS, MASK_SCORES, REGIONS, SHOWN_FIRST
from ruac.evaluation.results.schema import CASES


def build_report(results_dir: str | Path, out_path: str | Path | None = None, title: str | None = None) -> Path:
    """Write the HTML report of a sweep (``<results_dir>/report.html`` by default) and return its path.

    The file holds its own style, drawings and pictures and asks nothing of the network.
    Raises `RuacError` naming the file, column or key that is missing or broken.
    """
    results = load_results(Path(results_dir))
    panels, panel_count = load_panels(results.folder / "panels", results.models, optional=set(results.corrupted))
    environment = Environment(
        loader=PackageLoader("ruac.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        title=title or "Reliability report",
        manifest=results.manifest,
        results=results,
        regions=[(region, REGIONS.get(region, region)) for region in results.regions],
        object_count=len(results.objects.drop_duplicates(["domain", "image", "object"])),
        image_count=len(results.objects.drop_duplicates(["domain", "image"])),
        statements=statements(results),
        columns=results.columns,
        shown_first=[k for k in SHOWN_FIRST if k in results.values] or [c.key for c in results.columns[:5]],
        glance={region: glance(results, region) for region in results.regions},
        radar={region: radar(results, region) for region in results.regions},
        tables={region: region_table(results, region) for region in results.regions},
        dots={
            region: metric_charts(results, [COLUMNS[k] for k in DOTS if k in results.values], region)
            for region in results.regions
        },
        robustness={region: robustness(results, region) for region in results.regions},
        robust_groups=robust_groups(results),
        curves={region: curve_charts(results, region) for region in results.regions},
        curve_entries=results.entries_of(COLUMNS["ece"]) if "ece" in results.values else results.entries,
        mask_scores=mask_scores(results),
        bounds=bounds_table(results),
        mask_columns=MASK_SCORES,
        gallery=_gallery(results, panels),
        doubts=_doubts(results),
        panel_count=panel_count,
        panels_shown=len(panels),
        ramp=uncertainty_colors(),
    )
    path = Path(out_path) if out_path is not None else results.folder / "report.html"
    write_text(path, html)
    return path


def _gallery(results: Results, panels: list[Panel]) -> list[tuple[str, list[Panel]]]:
    """Panels by domain, unseen ones first, and within it by case."""
    order = dict.fromkeys([*results.domains, *results.references, *results.corrupted, *(p.domain for p in panels)])
    cases = [*CASES, *(p.case for p in panels)]
    groups = [(domain, [p for p in panels if p.domain == domain]) for domain in order]
    return [(domain, sorted(own, key=lambda p: cases.index(p.case))) for domain, own in groups if own]


def _doubts(results: Results) -> dict[tuple[str, ...], tuple[float, float]]:
    """Share of wrong pixels and mean uncertainty in the band, by domain, image, object and model."""
    objects = results.every_object
    if not {"band_error", "band_uncertainty"} <= set(objects):
        return {}
    keys = zip(*(objects[key] for key in ("domain", "image", "object", "model")), strict=True)
    return dict(zip(keys, zip(objects["band_error"], objects["band_uncertainty"], strict=True), strict=True))
