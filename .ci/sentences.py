"""Sentences of the pages that are too long to read: python .ci/sentences.py."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
MOST = 30  # words
# What does not belong to a sentence, or counts as one word of it.
LEFT_OUT = (
    (r"\A---\n(?s:.*?)\n---\n", ""), (r"```(?s:.*?)\n```", "\n\n"),
    (r"^\|.*$", "\n"), (r"^#.*$", "\n"),
    (r"!\[[^\]]*\]\([^)]*\)", "\n\n"),
    (r"\[([^\]]*)\]\([^)]*\)", r"\1"), (r"`[^`]*`", "code"),
    (r"\[[+−-]?[\d.]+,\s*[+−-]?[\d.]+\]", ""), (r"^ *(?:[-*]|\d+\.) ", "\n\n"),
)  # fmt: skip
END = re.compile(r"""(?<=[.!?])[)"”*]*\s+(?=[A-Z0-9("“*`\[]|code)""")


def sentences(page: str) -> list[str]:
    """The sentences of a page in Markdown, without its tables, code, headings and links.

    >>> sentences("# A page\\n\\nOne is `a, b`.\\nTwo is [a link](b.md).\\n\\n| no | no |")
    ['One is code.', 'Two is a link.']
    """
    for pattern, instead in LEFT_OUT:
        page = re.sub(pattern, instead, page, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n", page)
    return [" ".join(one.split()) for block in blocks for one in END.split(block) if one.strip()]


def words(sentence: str) -> int:
    """How many words a sentence has; a number is one, a sign is none."""
    return sum(any(map(str.isalnum, word)) for word in sentence.split())


def too_long() -> list[str]:
    """Each sentence beyond MOST words, with its page and its number of words."""
    return [
        f"{path.relative_to(ROOT)}: {words(one)} words: {one}"
        for path in PAGES
        for one in sentences(path.read_text(encoding="utf-8")) if words(one) > MOST
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit("\n".join(too_long()))
