"""The README as PyPI shows it: hatchling runs this whenever it builds the package.

PyPI has none of the files that the README links to. The links lead to `Repository` in project.urls.
Without such an address their words stay, and pictures are left out.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)\s]+)\)")  # to a file of the repository


def published_readme(text: str, repository: str | None) -> str:
    """A page in Markdown without relative links, for a repository laid out as GitHub does."""

    def published(link: re.Match[str]) -> str:
        mark, words, target = link.groups()
        if not repository:
            return "" if mark else words
        return f"{mark}[{words}]({repository}/{'raw' if mark else 'blob'}/HEAD/{target})"

    return LINK.sub(published, text)


class PublishedReadme(MetadataHookInterface):
    """Sets the package's readme."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the text to the metadata of pyproject.toml."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        page = published_readme(text, metadata.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": page}
