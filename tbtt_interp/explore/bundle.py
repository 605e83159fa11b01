"""The page's files, and its modules joined into one script.

A browser opens one script sooner than forty, and from disk it loads neither module files nor
workers. `join_modules` puts each module into a function of its own, those that others import first.
It reads the one form that our modules are written in: named imports from relative paths, and
`export` before a declaration.
"""

import re
from pathlib import Path

from tbtt_interp.errors import TbttError

WEB = Path(__file__).parent / "web"
FILES = {"index.html": "text/html", "style.css": "text/css", "main.js": "text/javascript",
         "worker.js": "text/javascript"}  # fmt: skip
IMPORT = re.compile(r"^import\s*\{([^}]*)\}\s*from\s*\"([^\"]+)\";\n", re.MULTILINE)
EXPORT = re.compile(
    r"^export (?=(?:async )?(?:function|const|let|class) ?\*? ?(\w+))", re.MULTILINE
)


def page_file(name: str) -> bytes:
    """One of the page's `FILES`; a script with all modules that it imports."""
    return join_modules(name).encode() if name.endswith(".js") else (WEB / name).read_bytes()


def join_modules(entry: str) -> str:
    """A module and all that it imports as one script.

    Raises:
        TbttError: if modules import each other in a circle, or one is written in another form.
    """
    done: dict[str, str] = {}
    _join(entry, (), done)
    return "\n".join(done.values())


def _join(name: str, above: tuple[str, ...], done: dict[str, str]) -> None:
    if name in done:
        return
    if name in above:
        raise TbttError(f"page modules import each other in a circle: {' → '.join(above)} → {name}")
    text = (WEB / name).read_text(encoding="utf-8")
    head = []
    for match in IMPORT.finditer(text):
        other = (WEB / name).parent.joinpath(match[2]).resolve().relative_to(WEB.resolve())
        _join(other.as_posix(), (*above, name), done)
        head.append(f"const {{ {' '.join(match[1].split())} }} = {_variable(other.as_posix())};")
    body = IMPORT.sub("", text)
    names = EXPORT.findall(body)
    body = EXPORT.sub("", body)
    if left := re.search(r"^(import|export)\b.*", body, re.MULTILINE):
        raise TbttError(f"page module {name} has {left[0]!r}: write named imports and exports")
    joined = "\n".join(head)
    done[name] = (
        f"const {_variable(name)} = (() => {{\n{joined}\n{body}\n"
        f"return {{ {', '.join(names)} }};\n}})();"
    )


def _variable(name: str) -> str:
    """The name of a module's exports in the joined script."""
    return "module_" + re.sub(r"\W", "_", name.removesuffix(".js"))
