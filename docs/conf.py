"""The documentation site: sphinx-build -W docs site. It runs the tutorials; nothing is fetched."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs
from sphinx.application import Sphinx

project = "tbtt_interp"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_typehints = "description"
napoleon_use_ivar = True
html_theme = "furo"
html_title = "tbtt_interp"
myst_heading_anchors = 3
myst_enable_extensions = ["smartquotes"]
exclude_patterns = ["conf.py"]
nb_execution_mode = "force"
nb_execution_in_temp = True  # what a tutorial trains is not left here
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for one cell, on a busy machine
nb_merge_streams = True
nb_output_stderr = "remove"  # progress, which differs from build to build
os.environ["PLOTLY_RENDERER"] = "sphinx_gallery"
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm wants ipywidgets
URLS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"][
    "urls"
]


def colab_link(name: str, urls: dict[str, str]) -> str:
    """A link that opens a tutorial in Colab, from the branch with the built site; or nothing."""
    repository = urls.get("Repository", "").removeprefix("https://github.com/")
    where = f"https://colab.research.google.com/github/{repository}/blob/gh-pages/{name}.ipynb"
    return f"[Open in Colab]({where})\n\n" if repository else ""


def with_colab_link(_app: Sphinx, name: str, source: list[str]) -> None:
    """Puts the link below a tutorial's title."""
    if name.startswith("tutorials/"):
        source[0] = re.sub(
            r"^# .*\n\n",
            lambda title: title[0] + colab_link(name, URLS),
            source[0],
            count=1,
            flags=re.M,
        )


def with_own_plotly(
    _app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object
) -> None:
    """Figures load plotly from the site, once a page, and scroll where they are wide."""
    body, n_scripts = re.subn(
        r'<script[^>]*src="https://[^>]*></script>', "", context.get("body", "")
    )
    if n_scripts:
        plotly = f'<script src="{context["pathto"]("_static/plotly.min.js", 1)}"></script>'
        context["body"] = f"<style>.output {{ overflow-x: auto }}</style>{plotly}{body}"


def write_plotly_and_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Puts plotly and the executed notebooks beside the pages."""
    if error is None and app.builder.name == "html":
        (app.outdir / "_static/plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
        for path in (app.outdir.parent / "jupyter_execute/tutorials").glob("*.ipynb"):
            (app.outdir / "tutorials" / path.name).write_bytes(path.read_bytes())


def setup(app: Sphinx) -> None:
    """Registers the three."""
    app.connect("source-read", with_colab_link)
    app.connect("html-page-context", with_own_plotly)
    app.connect("build-finished", write_plotly_and_notebooks)
