"""Build the site of the documentation, with llms.txt, and check its links: `python infra/dev/site.py FOLDER`.

Zensical builds a copy of all pages and of the files that they link to. So links work here as they do in the repository.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[^)\s]*)?\)")
ROW = re.compile(r"^\| \[[^\]]+\]\(([\w-]+\.md)\) \| (.+) \|$", re.MULTILINE)
"""A row of docs/index.md: a page, and what it is for."""
LOADING = {("link", "href"), ("img", "src"), ("script", "src")}


def build(site: Path) -> None:
    """Build the site into a folder, which is replaced."""
    with tempfile.TemporaryDirectory(prefix="ssd-batch-site-") as name:
        folder = Path(name)
        stage(folder / "pages")
        shutil.copy(ROOT / "infra/dev/zensical.toml", folder)
        zensical = Path(sys.executable).with_name("zensical")
        done = subprocess.run([zensical, "build", "--strict"], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 our own
        if done.returncode:
            sys.exit(f"{done.stdout}{done.stderr}")
        write_llms(folder / "pages", folder / "site")
        if broken := sorted(broken_links(folder / "site")):
            sys.exit("broken links:\n" + "\n".join(broken))
        shutil.rmtree(site, ignore_errors=True)
        shutil.copytree(folder / "site", site)


def stage(pages: Path) -> None:
    """Copy all pages, and the files that they link to. A link to a folder or a hidden file becomes its text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()  # noqa: S603 the same
    for page in [ROOT / name for name in names]:

        def staged(link: re.Match[str], page: Path = page) -> str:
            target = page.parent / link[2]
            if "://" in link[2] or target.suffix == ".md":
                return link[0].replace("README.md", "index.md") if target == ROOT / "README.md" else link[0]
            if target.is_dir() or ".ci" in target.parts:
                return link[1]
            copy(target, pages)
            return link[0]

        there = pages / page.relative_to(ROOT)
        there = there.with_name("index.md") if page == ROOT / "README.md" else there
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(LINK.sub(staged, page.read_text()))


def copy(file: Path, pages: Path) -> None:
    """Copy a file of the repository to its place among the pages."""
    there = pages / file.resolve().relative_to(ROOT)
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, there)


def write_llms(pages: Path, site: Path) -> None:
    """Write llms.txt, a list of all pages for language models, and the pages' sources that it names (llmstxt.org)."""
    readme = (pages / "index.md").read_text()
    summary = next(part for part in readme.split("\n\n") if part[:1].isalpha())
    lines = ["# ssd-batch", "", f"> {' '.join(summary.split())}", "", "## Docs", ""]
    for name, text in ROW.findall((pages / "docs/index.md").read_text()):
        lines.append(f"- [{name.removesuffix('.md')}](docs/{name}): {text}")
        shutil.copy(pages / "docs" / name, site / "docs" / name)
    (site / "llms.txt").write_text("\n".join(lines) + "\n")


class Page(HTMLParser):
    """The links of a page, what it loads, and its anchors."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a tag leads to, or what it is called."""
        for key, value in attrs:
            if key == "id" and value:
                self.anchors.add(value)
            elif value and (tag, key) == ("a", "href"):
                self.links.append(value)
            elif value and (tag, key) in LOADING:
                self.loaded.append(value)


def broken_links(site: Path) -> Iterator[str]:
    """Yield each link that leads nowhere, and each file that a page would load from another server."""
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    yield f"{path.relative_to(site)}: {link} is of another server"
                continue
            if path.name == "404.html":  # its links are absolute, as it may be shown anywhere
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (parts.fragment and there in pages and parts.fragment not in pages[there].anchors):
                yield f"{path.relative_to(site)}: {link}"


if __name__ == "__main__":
    build(Path(sys.argv[1]))
