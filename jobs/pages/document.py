"""The parts that all pages share. A page is one HTML file, with pictures, without scripts and without a network."""

import base64
import io
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.pages.draw import thumbnail
from pipeline.errors import SettingError, reason
from pipeline.images.decode import DecodeError, decode
from pipeline.storage import store
from pipeline.urls import absolute

SIDE_PX = 280
"""The longer side of a picture, in pixels."""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .3rem; overflow-wrap: anywhere }
h3 { font-size: .95rem; margin: 1.2rem 0 .4rem }
table { border-collapse: collapse; margin: .6rem 0 } th, td { padding: .15rem .9rem .15rem 0; text-align: left; border-bottom: 1px solid #ddd }
td { overflow-wrap: anywhere; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.error { color: #b3261e } .note { color: #666 } .sound { color: #1b7a3d }
.gone { background: #ddd; color: #555; height: 180px; display: grid; place-items: center; padding: .6rem; box-sizing: border-box;
  font-size: 12px; text-align: center; overflow: hidden; overflow-wrap: anywhere }
.tiles { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin: 1rem 0 } .tiles b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums }
@media (max-width: 700px) { table { display: block; overflow-x: auto } }
.sheet { display: flex; flex-wrap: wrap; gap: .8rem } figure { margin: 0; width: 280px } img { display: block; max-width: 100% }
figcaption, details { font-size: 12px; color: #555; overflow-wrap: anywhere } svg { display: block; margin: .4rem 0; max-width: 100%; height: auto }
"""


def document(title: str, parts: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        title: the title, as plain text.
        parts: the parts as HTML, one below the other.
    """
    head = (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>',
        f"<h1>{escape(title)}</h1>",
    )
    return "\n".join((*head, *parts, "</html>"))


def write_page(url: str, page: str, setting: str) -> None:
    """Write a page to a path or URL.

    Raises:
        SettingError: it can't be written. `setting` is the name of the setting with the place.
    """
    with _explained(url, setting):
        store.write(absolute(url), page.encode())


@contextmanager
def _explained(url: str, setting: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingError(f"{setting} {url!r} can't be written: {reason(error)}") from error


class Page:
    """A page to be written to a path or URL; without one, nothing is written.

    Args:
        url: the path or URL.
        setting: the name of the setting that gave it, for errors.
    """

    def __init__(self, url: str | None, setting: str) -> None:
        self._url, self._setting = url, setting

    def write(self, render: Callable[[], str]) -> None:
        """Render the page and write it; raises as `write_page`."""
        if self._url:
            write_page(self._url, render(), self._setting)


def page_at(url: str | None, setting: str) -> Page:
    """Return a page, after checking that it can be written: the work for it may take hours.

    Raises:
        SettingError: it can't be written.
    """
    if url:  # a file beside it: the page that is there may be worth keeping, should the command fail
        probe = f"{absolute(url)}.{uuid.uuid4().hex}"
        with _explained(url, setting):
            store.write(probe, b"")
            store.delete(probe)
    return Page(url, setting)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], are_numbers: bool = True) -> str:
    """Return a table of cells that are escaped already.

    All columns but the first are aligned as numbers, unless `are_numbers` is False.
    """
    rest = ' class="number"' if are_numbers else ""

    def cells(tag: str, row: Sequence[str]) -> str:
        return f"<{tag}>{row[0]}</{tag}>" + "".join(f"<{tag}{rest}>{cell}</{tag}>" for cell in row[1:])

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{cells('th', header)}</tr>{body}</table>"


def picture(
    uri: str,
    boxes_xyxy: NDArray[np.float64],
    texts: Sequence[str],
    caption: str,
    colours: Sequence[str] | None = None,
) -> str | None:
    """Return a figure with a small picture of an image and its boxes; None if the image can't be read.

    For the boxes, texts and colours, see `thumbnail`.
    """
    try:
        content = store.read(uri)
        return figure(drawn_picture(content, boxes_xyxy, texts, colours), caption)
    except (OSError, DecodeError):
        return None


def drawn_picture(
    content: bytes, boxes_xyxy: NDArray[np.float64], texts: Sequence[str], colours: Sequence[str] | None = None
) -> str:
    """Return an element with a small picture of an image and its boxes, see `thumbnail`.

    Args:
        content: the image's file.
        boxes_xyxy, texts, colours: see `thumbnail`.

    Raises:
        DecodeError: the file is no image that can be decoded.
    """
    image = Image.fromarray(decode(content).permute(1, 2, 0).contiguous().numpy())
    encoded = io.BytesIO()
    thumbnail(image, boxes_xyxy, texts, SIDE_PX, colours).save(encoded, "JPEG", quality=75)
    source = base64.b64encode(encoded.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{source}" alt="">'


def figure(content: str, caption: str) -> str:
    """Return an element of HTML, with a caption of plain text below it."""
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"
