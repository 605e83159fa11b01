"""The documentation site: sphinx-build -W docs site."""

project = "tbtt_interp"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
autodoc_typehints = "description"
napoleon_use_ivar = True
html_theme = "furo"
html_title = "tbtt_interp"
myst_heading_anchors = 3
myst_enable_extensions = ["smartquotes"]
exclude_patterns = ["conf.py"]
