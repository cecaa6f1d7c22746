"""Pages that the site makes of other files (README, CHANGELOG, examples, results), and a check of the API.

Pages link to files of the repository (`../examples/train.py`), so that the links work wherever it is browsed.
The site has a page for each of those files; the hook rewrites the links to that page.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
LINK = re.compile(r"(\]\()([^)\s#]+)")
ROLE = re.compile(r":(?:attr|class|func|meth|mod):(`[^`]+`)")


class PlainRoles(griffe.Extension):
    """Show the cross-references of docstrings (``:func:`name` ``) as the names they hold."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r"\1", obj.docstring.value)


class SharedArguments(griffe.Extension):
    """Show the losses with their shared arguments, which signature and docstring get at run time."""

    def on_class_members(self, *, cls: griffe.Class, **_: object) -> None:
        """Rewrite the constructor and the docstring of one loss."""
        if not cls.path.startswith("fastsdm.losses._"):
            return
        loss = getattr(importlib.import_module(cls.module.path), cls.name)
        if getattr(loss, "__signature__", None) is None or not cls.docstring:
            return
        cls.docstring.value = ROLE.sub(r"\1", str(inspect.getdoc(loss)))
        shown = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        for name, parameter in inspect.signature(loss).parameters.items():
            kind = getattr(griffe.ParameterKind, parameter.kind.name.lower())
            annotation, default = str(parameter.annotation), repr(parameter.default)
            shown.append(griffe.Parameter(name, kind=kind, annotation=annotation, default=default))
        cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*shown)))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every example, every benchmark's result and the project's own pages."""
    for example in sorted((ROOT / "examples").glob("*.py")):
        title = f"# examples/{example.name}\n\n"
        text = f"{title}```python\n{example.read_text()}```\n"
        files.append(File.generated(config, f"examples/{example.stem}.md", content=text))
    for result in sorted((ROOT / "benchmarks" / "results").iterdir()):
        if result.suffix in {".md", ".png"}:
            files.append(File.generated(config, f"results/{result.name}", content=result.read_bytes()))
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages."""
    uri = page.file.src_uri
    origin = _repository_path(uri)

    def turned(match: re.Match[str]) -> str:
        target = match[2]
        if re.match(r"[a-z]+:", target):
            return match[0]
        wanted = _site_path(posixpath.normpath(posixpath.join(posixpath.dirname(origin), target)))
        return match[1] + posixpath.relpath(wanted, posixpath.dirname(uri) or ".")

    return LINK.sub(turned, markdown)


def _repository_path(uri: str) -> str:
    if uri.startswith("results/"):
        return f"benchmarks/{uri}"
    return {page: source for source, page in PAGES.items()}.get(uri, f"docs/{uri}")


def _site_path(path: str) -> str:
    if path in PAGES:
        return PAGES[path]
    if path.startswith("examples/") and path.endswith(".py"):
        return f"{path.removesuffix('.py')}.md"
    return path.removeprefix("docs/").removeprefix("benchmarks/") if not path.endswith(".py") else path


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that leaves out a public name, or the names of the losses' shared arguments."""
    api = [page.read_text() for page in (Path(config.site_dir) / "api").rglob("*.html")]
    if any("LossOptions" in page for page in api):
        raise PluginError(
            "api/losses.md shows constructors as they are written, without the shared arguments"
        )
    anchors = {anchor for page in api for anchor in re.findall(r'id="(fastsdm[\w.]*)"', page)}
    missing = sorted(_public_names() - anchors)
    if missing:
        raise PluginError(f"public names that no page under docs/api describes: {', '.join(missing)}")


def _public_names() -> set[str]:
    names = set()
    for path in sorted((ROOT / "fastsdm").rglob("*.py")):
        if path.parent.name == "nnunet_trainers":  # the folder that nnU-Net searches; it passes names on
            continue
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        private = any(part.startswith("_") and part != "__init__" for part in parts)
        if private or module.startswith("fastsdm.cli"):
            continue
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
                names |= {f"{module}.{name}" for name in ast.literal_eval(statement.value)}
    return names - {"fastsdm.__version__"}
