"""Count docstrings that open as a fragment: with a word that is neither a verb nor a noun with its article. Exit with 1 if there are any.

`check_docstrings.py --long [FILE_OR_FOLDER...]` lists sentences of more than 25 words, too, which is no error.
"""

import ast
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

FOLDERS = ("pipeline", "jobs", "model", "infra")
FRAGMENTS = frozenset([
    "About", "Above", "After", "Again", "All", "And", "Another", "Any", "As", "At", "Because", "Before", "Below",
    "Beside", "Besides", "Both", "But", "By", "Each", "Either", "Elsewhere", "Every", "For", "From", "Half", "His",
    "How", "However", "If", "In", "Instead", "Into", "Its", "Like", "More", "Most", "Neither", "Never", "No",
    "None", "Nor", "Not", "Nothing", "Of", "On", "Once", "One", "Ones", "Only", "Onto", "Or", "Other", "Others",
    "Our", "Over", "Own", "Same", "Several", "Since", "So", "Some", "Somewhere", "Such", "Than", "That", "Their",
    "Them", "Then", "There", "These", "They", "This", "Those", "Through", "To", "Two", "Under", "Until", "Up",
    "Upon", "What", "Whatever", "When", "Where", "Whether", "Which", "While", "Who", "Whoever", "Whom", "Whose",
    "Why", "With", "Within", "Without", "Yet",
])  # fmt: skip
MAX_WORDS = 25


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring: of modules, classes, functions, constants and fields."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_documented and (text := ast.get_docstring(node)):
            yield body[0].lineno, text
        for before, expression in pairwise(body):
            is_assignment = isinstance(before, ast.Assign | ast.AnnAssign)
            if is_assignment and isinstance(expression, ast.Expr) and isinstance(expression.value, ast.Constant):
                yield expression.lineno, str(expression.value.value)


def is_fragment(text: str) -> bool:
    """Does a docstring open with neither a verb nor a noun?"""
    return re.split(r"[^\w]", text.strip(), maxsplit=1)[0] in FRAGMENTS


def long_sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a docstring that have too many words."""
    for block in re.split(r"\n\s*\n|\n\s*(?=\w+:|[-*] )", text):
        for sentence in re.split(r"(?<=[.:;?!])\s+", " ".join(block.split())):
            if len(sentence.split()) > MAX_WORDS:
                yield sentence


def _files(names: list[str]) -> Iterator[Path]:
    for path in map(Path, names):
        yield from path.rglob("*.py") if path.is_dir() else [path]


def main(arguments: list[str]) -> int:
    """Print what is found, and return the exit code."""
    is_long = "--long" in arguments
    folders = [argument for argument in arguments if argument != "--long"] or list(FOLDERS)
    num_docstrings = num_fragments = 0
    for path in sorted(_files(folders)):
        for line, text in docstrings(ast.parse(path.read_text())):
            num_docstrings += 1
            if is_fragment(text):
                num_fragments += 1
                print(f"{path}:{line}: opens as a fragment: {text.strip().splitlines()[0]}")
            if is_long:
                for sentence in long_sentences(text):
                    print(f"{path}:{line}: {len(sentence.split())} words: {sentence}")
    print(f"{num_docstrings:,} docstrings, {num_fragments} open as a fragment")
    return 1 if num_fragments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
