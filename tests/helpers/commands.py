"""What a page of the documentation tells people to type, and what it says comes out.

A page's fenced blocks are: ```console, commands, one a line; ```text directly after it, what its
last command prints, ``...`` standing for anything; ```KIND FILE, a file that the reader writes.
``# needs MARKER`` after a command names what not every machine has, as a marker of pytest.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LAUNCHING = ROOT / "torchx_components" / "README.md"
# Pages whose commands take too long, or more than is here: tests see that they are understood.
PARSED = [
    README,
    *(
        ROOT / "torchrec_mm" / room / "README.md"
        for room in ("benchmarks", "data/public", "pretraining", "ranking", "serving")
        + ("serving/additions", "serving/page", "serving/request_log", "study")
    ),
    ROOT / "torchrec_mm" / "serving" / "production.md",
    ROOT / "tests" / "README.md",
]
# Pages whose commands tests run.
READ = ("apps/README.md", "torchrec_mm/**/README.md", "torchrec_mm/runs/own_job.md")
GUIDES = sorted({page for pattern in READ for page in ROOT.glob(pattern)} - {*PARSED})

FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
LINK = re.compile(r"\]\((?!http)([^)]+)\)")
DECIMAL = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Command:
    """A line to type. needs: a marker of pytest, or empty. shown: its output, None if not told."""

    line: str
    needs: str = ""
    shown: str | None = None


def commands_of(page: Path) -> list[Command]:
    """The commands of a page, in order."""
    return list(_commands(page.read_text()))


def files_of(page: Path) -> dict[str, str]:
    """The files that a page has its reader write: content by path."""
    named = (fence[1].split() + [fence[2]] for fence in FENCE.finditer(page.read_text()))
    return {words[1]: words[2] for words in named if len(words) == 3}


def links_of(page: Path) -> list[str]:
    """Where a page leads to within the repository, as it is written."""
    return LINK.findall(FENCE.sub("", page.read_text()))


def anchors_of(page: Path) -> set[str]:
    """The headings of a page, as a link names them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def matches(shown: str, printed: str) -> bool:
    """Whether the output is as shown.

    Numbers with a decimal point may differ by 1 %: sums of floats depend on the machine.
    """
    parts = re.split(rf"({DECIMAL.pattern}|\.\.\.)", shown.strip())
    literals = [re.escape(part) for part in parts[::2]]
    rest = ["(?:.|\n)*?" if part == "..." else f"({DECIMAL.pattern})" for part in parts[1::2]]
    pattern = "".join(map("".join, zip_longest(literals, rest, fillvalue="")))
    found = re.fullmatch(pattern, printed.strip())
    wanted = DECIMAL.findall(shown)
    return found is not None and all(
        float(ours) == pytest.approx(float(theirs), rel=0.01, abs=0.006)
        for ours, theirs in zip(found.groups(), wanted, strict=True)
    )


def _commands(text: str) -> Iterator[Command]:
    fences = list(FENCE.finditer(text))
    for fence, following in zip_longest(fences, fences[1:]):
        if fence[1] != "console":
            continue
        shown = None
        if following and following[1] == "text":
            if not text[fence.end() : following.start()].strip():
                shown = following[2]
        lines = fence[2].splitlines()
        for line in lines:
            command, _, comment = line.partition("  #")
            marker = re.search(r"needs (\w+)", comment)
            needs, printed = marker[1] if marker else "", shown if line is lines[-1] else None
            yield Command(command.strip(), needs, printed)
