"""The explorer and the report in a browser: what people see and do, with the keyboard alone too, on a screen and on a phone."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.demo import PACKAGE
from tests.conftest import wait_until
from tests.e2e.command import TIMEOUT_S, answer, jpeg, start

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no browser: infra/dev/chromium.sh install"),
]
SIZES = {"screen": {"width": 1280, "height": 800}, "phone": {"width": 390, "height": 844}}
NUM_PICTURES = 70
"""More than a page of the gallery has."""
sync_api.expect.set_options(timeout=1000 * TIMEOUT_S)
IS_WHOLE = """frames => frames.filter(frame => {
    const [of_frame, of_boxes] = [frame, frame.querySelector("svg")].map(element => element.getBoundingClientRect());
    return Math.abs(of_frame.width - of_boxes.width) > 1 || Math.abs(of_frame.height - of_boxes.height) > 1;
}).map(frame => frame.innerHTML)"""
"""JavaScript that returns the frames in which a picture or its boxes are cut off."""
FITS = """document.scrollingElement.scrollWidth <= innerWidth && [...document.querySelectorAll("aside *")].every(
    part => part.getBoundingClientRect().right <= part.closest("aside").getBoundingClientRect().right
)"""
SCREENSHOTS = os.environ.get("SSD_BATCH_SCREENSHOTS")
"""A folder for pictures of the pages, to look at."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Pictures by two models. One is broken, and one has gone since."""
    folder = tmp_path_factory.mktemp("explored")
    (folder / "pictures").mkdir()
    for index in range(NUM_PICTURES):
        (folder / f"pictures/{index:02}.jpg").write_bytes(jpeg(index))
    (folder / "pictures/<i>broken.jpg").write_bytes(jpeg(0)[:100])
    for package in (PACKAGE, model):
        answer("infer", "--input", folder / "pictures", "--table", folder / "table", "--model", package)
    (folder / "pictures/00.jpg").unlink()
    return folder / "table"


@pytest.fixture(scope="module")
def url(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process = start("explore", "--table", table, "--port", 0, "--cache", tmp_path_factory.mktemp("cache"), "--json")
    try:
        assert process.stdout
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert "Traceback" not in err, err


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, request):
    """Open a page of a size at an address. At the end there must have been no error in the console."""
    errors, contexts = [], []

    def open_page(address: str, size: str = "screen"):
        context = browser.new_context(viewport=SIZES[size])
        context.set_default_timeout(1000 * TIMEOUT_S)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for number, context in enumerate(contexts):
        if SCREENSHOTS:
            name = re.sub(r"\W+", "-", request.node.name)
            context.pages[0].screenshot(path=f"{SCREENSHOTS}/{name}-{number}.png")
        context.close()
    assert errors == []


def found(page) -> str:
    """What the gallery says that it shows."""
    sync_api.expect(page.locator("#found")).not_to_have_text("…")
    return page.locator("#found").inner_text()


def are_loaded(page, selector: str) -> bool:
    """Are all pictures there?"""
    return page.locator(selector).evaluate_all(
        "images => images.length > 0 && images.every(image => image.naturalWidth > 0)"
    )


def fits(page) -> bool:
    """Is nothing beside the screen, and no filter beside the other filters?"""
    return page.evaluate(FITS)


@pytest.mark.parametrize("size", SIZES)
def test_the_gallery_has_pictures_with_boxes(url: str, size: str, open_page) -> None:
    page = open_page(f"{url}?sort=name", size)
    assert found(page).startswith("1 to 60 of 142 images")
    sync_api.expect(page.locator(".tile")).to_have_count(60)
    wait_until(lambda: are_loaded(page, ".tile:nth-child(-n+4) img"))
    assert page.locator(".tile svg rect").count() > 60
    assert page.locator(".frame").evaluate_all(IS_WHOLE) == []
    assert fits(page)


def test_a_class_a_bar_and_a_word_filter_and_the_way_back(url: str, open_page) -> None:
    page = open_page(url)
    sync_api.expect(page.get_by_label("Order").locator("option:checked")).to_have_text("newest first")
    everything = found(page)
    page.locator("#labels button").first.click()
    sync_api.expect(page.locator("#found")).not_to_have_text(everything)
    assert "label=" in page.url
    chosen = found(page)
    page.locator("#num_boxes button[aria-label^='2 boxes']").click()
    sync_api.expect(page.locator("#found")).not_to_have_text(chosen)
    assert "min_boxes=2" in page.url
    filtered = found(page)
    page.reload()
    assert found(page) == filtered
    page.go_back()
    page.go_back()
    sync_api.expect(page.locator("#found")).to_have_text(everything)
    page.locator("#text").fill("07.jpg")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator(".tile")).to_have_count(2)
    page.get_by_role("button", name="Clear all").click()
    sync_api.expect(page.locator("#found")).to_have_text(everything)


def test_by_the_keyboard_alone(url: str, open_page) -> None:
    page = open_page(f"{url}?sort=name")
    found(page)
    page.keyboard.press("n")
    sync_api.expect(page.locator("#found")).to_contain_text("61 to 120")
    page.keyboard.press("p")
    sync_api.expect(page.locator("#found")).to_contain_text("1 to 60")
    sync_api.expect(page.locator(".tile")).to_have_count(60)
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("Boolean(document.activeElement.closest('.tile > button'))"):
            break
    first = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("x")
    sync_api.expect(page.get_by_role("link", name="List of 1 picked")).to_be_visible()
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#detail")).to_be_visible()
    opened = page.locator("#detail strong").inner_text()
    assert first.startswith(opened)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # each picture is there twice, by both models
    sync_api.expect(page.locator("#detail strong")).not_to_have_text(opened)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    sync_api.expect(page.locator("#detail strong")).to_have_text(opened)
    page.keyboard.press("Escape")
    sync_api.expect(page.locator("#detail")).to_be_hidden()
    page.wait_for_url(lambda url: "image=" not in url)
    page.keyboard.press("?")
    sync_api.expect(page.locator("#help")).to_be_visible()


@pytest.mark.parametrize("size", SIZES)
def test_one_image_has_an_address_of_its_own(url: str, size: str, open_page) -> None:
    page = open_page(f"{url}?text=07.jpg", size)
    page.locator(".tile > button").first.click()
    sync_api.expect(page.locator("#detail")).to_be_visible()
    again = open_page(page.url, size)
    sync_api.expect(again.locator("#detail strong")).to_contain_text("07.jpg")
    wait_until(lambda: are_loaded(again, "#detail img"))
    assert again.locator("#detail svg rect").count() > 0
    assert fits(again)


@pytest.mark.parametrize("size", SIZES)
def test_two_models_side_by_side(url: str, size: str, open_page) -> None:
    page = open_page(f"{url}?view=compare", size)
    sync_api.expect(page.get_by_role("status")).to_contain_text("70 images on both sides")
    assert page.locator(".pair-of-images").count() == 30
    assert fits(page)


def test_failures_by_cause(url: str, open_page) -> None:
    page = open_page(f"{url}?view=failures")
    sync_api.expect(page.locator("tbody tr")).to_have_count(1)
    sync_api.expect(page.locator("tbody tr")).to_contain_text("DecodeError")
    page.get_by_role("button", name="image 1").click()
    sync_api.expect(page.locator("#detail strong")).to_contain_text("<i>broken.jpg")


def test_sql(url: str, open_page) -> None:
    page = open_page(f"{url}?view=sql")
    page.locator("#sql").fill("SELECT count(*) AS n FROM images")
    page.keyboard.press("Control+Enter")
    sync_api.expect(page.locator("#answer td")).to_have_text("142")
    assert "q=SELECT" in page.url


def test_an_image_that_has_gone_is_a_tile_that_says_so(url: str, open_page) -> None:
    page = open_page(f"{url}?text=00.jpg")
    sync_api.expect(page.locator(".tile")).to_have_count(2)
    wait_until(lambda: are_loaded(page, ".tile img"))
    source = page.locator(".tile img").first.get_attribute("src")
    tile = page.request.get(url.rstrip("/") + source)
    assert "No such file" in re.sub(r"(<[^>]*>)+", " ", tile.text())
    assert tile.headers["content-type"] == "image/svg+xml"


@pytest.mark.parametrize("size", SIZES)
def test_the_report(table: Path, size: str, tmp_path: Path, open_page) -> None:
    answer("report", "--table", table, "--out", tmp_path / "report.html")
    page = open_page(f"file://{tmp_path}/report.html", size)
    assert page.locator("figure img").count() >= 12
    assert page.locator("[role=img] svg").count() >= 4
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert fits(page)
