"""The page in a real browser: on a desk, on a phone, in the dark and on paper."""

import pytest

from ruac.evaluation.report import build_report

pytestmark = pytest.mark.slow
WIDTHS = {"desktop": 1280, "phone": 390}
A4 = {"portrait": 688, "landscape": 1016}  # CSS pixels between margins of 14 mm
REPORTED = """() => [...document.querySelectorAll("SELECTOR")].filter(e => {
  const box = e.getBoundingClientRect(), frame = document.documentElement.clientWidth;
  return box.width && (box.right > frame + 1 || box.left < -1);
}).map(e => e.outerHTML.slice(0, 120))"""
EVERY_METRIC = "document.querySelectorAll('.chooser input:not(:checked)').forEach(box => box.click())"
SORTED = """table => [...table.tHead.querySelectorAll("th:not(.group)")].map((head, i) => [1, 2].map(() => {
  head.querySelector("button").click();
  const order = head.ariaSort, cells = [...[...table.tBodies].at(-1).rows].map(row => row.cells[i]);
  return [order, cells.map(cell => cell.dataset.value ?? cell.textContent)];
}))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory, make_results):
    """A sweep with a long name, three models and a corruption."""
    folder = tmp_path_factory.mktemp("browser") / "sweep"
    domains = ("a_domain_with_a_very_long_name_indeed", "leaves", "roads")
    corruptions = (("fog", "1", 1), ("fog", "5", 5))
    models = ("vanilla", "ruac", "noise")
    return build_report(make_results(folder, domains=domains, models=models, corruptions=corruptions))


@pytest.fixture
def visit(browser, report):
    """``visit(width, **options)`` opens the report; its console and network are checked when the test is over."""
    opened = []

    def open_page(width=1280, **options):
        page = browser.new_context(viewport={"width": width, "height": 844}, **options).new_page()
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        opened.append((page, said, asked))
        return page

    yield open_page
    for page, said, asked in opened:
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
        page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_the_page_never_scrolls_sideways_but_tables_do_in_their_box(visit, width, scheme):
    page = visit(width, color_scheme=scheme)
    page.evaluate(EVERY_METRIC)
    page.locator(".unfold").click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(REPORTED.replace("SELECTOR", "main p, figure, .scroll, .box, nav")) == []
    wide = page.evaluate("[...document.querySelectorAll('.domains .scroll')].map(e => e.scrollWidth > e.clientWidth)")
    assert wide[0]
    ink, paper = page.evaluate(
        "(({color, backgroundColor}) => [color, backgroundColor])(getComputedStyle(document.body))"
    )
    brightness = [sum(map(int, value[4:-1].split(","))) for value in (ink, paper)]
    assert (brightness[0] < brightness[1]) == (scheme == "light")


def test_pictures_are_decoded_and_text_in_charts_can_be_read(visit):
    page = visit(390)
    page.locator(".unfold").click()
    assert (
        page.evaluate("Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)") > 9
    )
    small = (
        "[...document.querySelectorAll('.chart')].map(c => c.getBoundingClientRect().width / c.viewBox.baseVal.width)"
    )
    assert min(share for share in page.evaluate(small) if share) > 0.65  # of 10 px


def test_every_sortable_table_sorts_by_every_column(visit):
    page = visit()
    tables = page.locator("table.sortable:visible")
    assert tables.count() == 4  # means, domains, fog, predicted IoU
    for table in tables.all():
        for column, turns in enumerate(table.evaluate(SORTED)):
            assert [order for order, _ in turns] == ["ascending", "descending"]
            for order, cells in turns:
                there = [cell for cell in cells if cell]
                assert cells == there + [""] * (len(cells) - len(there))  # what is missing stays last
                values = [float(cell) for cell in there] if column else there
                assert values == sorted(values, reverse=order == "descending")
        assert table.locator("th[aria-sort]").count() == 1


def test_a_column_header_leads_to_its_definition(visit):
    page = visit()
    page.locator(".glance:visible th a", has_text="ECE").first.click()
    assert page.url.endswith("#metric-ece")
    top = page.locator("#metric-ece").bounding_box()["y"]
    assert page.locator("nav").bounding_box()["height"] <= top < 844  # in sight, not below the sticky bar


def test_the_region_switch_changes_tables_and_charts(visit):
    page = visit()
    before = page.locator(".radar:visible svg").get_attribute("aria-label")
    page.get_by_text("band around the object", exact=True).first.click()
    after = page.locator(".radar:visible svg").get_attribute("aria-label")
    assert (before.split(", ")[-1], after.split(", ")[-1]) == ("image", "band")


@pytest.mark.parametrize("every_metric", [False, True])
@pytest.mark.parametrize("sheet", A4)
def test_on_paper_nothing_is_folded_cut_or_hidden(visit, sheet, every_metric):
    page = visit(A4[sheet])
    if every_metric:
        page.evaluate(EVERY_METRIC)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    where = "table, figure, .card, .box"
    place = where if sheet == "landscape" else ", ".join(f"{w}:not(.landscape *)" for w in where.split(", "))
    assert page.evaluate(REPORTED.replace("SELECTOR", place)) == []
    for region in (0, 1):
        assert page.locator(f".in-region-{region}").first.is_visible()
    cut = "[...document.querySelectorAll('figure, .card, tr')].filter(e => getComputedStyle(e).breakInside !== 'avoid')"
    assert page.evaluate(f"{cut}.length") == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 1


def test_the_whole_page_can_be_printed(visit):
    pdf = visit().pdf(format="A4", prefer_css_page_size=True)
    assert 5 < pdf.count(b"/Type /Page\n") < 60
