"""The check of the documentation's site finds what is broken. `make check` builds the site itself."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "infra/dev/site.py"


@pytest.fixture(scope="module")
def site():
    spec = spec_from_file_location("documentation_site", SITE)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("html", "broken"),
    [
        ('<a href="other.html">', []),
        ('<a href="other.html#part">', []),
        ('<a href="#here" id="here">', []),
        ('<a href="https://example.com/gone">', []),
        ('<a href="deep/">', []),
        ('<img src="data:image/png;base64,">', []),
        ('<a href="gone.html">', ["page.html: gone.html"]),
        ('<a href="other.html#gone">', ["page.html: other.html#gone"]),
        ('<a href="#gone">', ["page.html: #gone"]),
        ('<img src="gone.jpg">', ["page.html: gone.jpg"]),
        ('<script src="https://example.com/x.js">', ["page.html: https://example.com/x.js is of another server"]),
        ('<link href="//example.com/x.css">', ["page.html: //example.com/x.css is of another server"]),
    ],
)
def test_what_leads_nowhere_is_found(html, broken, site, tmp_path):
    (tmp_path / "other.html").write_text('<h2 id="part">')
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/index.html").write_text("")
    (tmp_path / "page.html").write_text(html)
    assert list(site.broken_links(tmp_path)) == broken


def test_all_pages_are_staged_with_what_they_link_to(site, tmp_path):
    site.stage(tmp_path)
    assert (tmp_path / "index.md").read_text().startswith("# ssd-batch")
    assert (tmp_path / "docs/explorer.jpg").exists()
    assert (tmp_path / "jobs/nightly.yaml").exists()
    assert not (tmp_path / "README.md").exists()
