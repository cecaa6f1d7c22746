"""A module without underscore is public and lists its names in ``__all__``; all others are ``_module.py``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastsdm

PACKAGE = Path(fastsdm.__file__).parent
# The command line is a program: its modules are reached through `fastsdm`, not imported.
PROGRAM = PACKAGE / "cli"


def is_public(path: Path) -> bool:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return path == PROGRAM / "__init__.py" or (
        PROGRAM not in path.parents and not any(part.startswith("_") and part != "__init__" for part in parts)
    )


def assigned_names(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.If(body=body, orelse=orelse):
            return {name for inner in (*body, *orelse) for name in assigned_names(inner)}
    return set()


def exported_names(statement: ast.stmt) -> set[str]:
    """What the `__init__.py` of a package takes from the package's own modules."""
    match statement:
        case ast.ImportFrom(module=str(module), names=names) if module.startswith("fastsdm"):
            return {alias.asname or alias.name for alias in names}
    return set()


def listed_names(tree: ast.Module) -> list[str] | None:
    for statement in tree.body:
        if assigned_names(statement) == {"__all__"}:
            assert isinstance(statement, ast.Assign | ast.AnnAssign)
            assert statement.value is not None
            return list(ast.literal_eval(statement.value))
    return None


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(PACKAGE.rglob("*.py")) if is_public(path)],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_all_is_what_the_module_has_to_offer(path: Path) -> None:
    tree = ast.parse(path.read_text())
    listed = listed_names(tree)
    assert listed is not None, "the module's name is public, but it has no __all__"
    bound = {name for statement in tree.body for name in assigned_names(statement)}
    if path.name == "__init__.py":
        bound |= {name for statement in tree.body for name in exported_names(statement)}
    else:  # other modules may offer names of another one beside their own
        taken = {name for statement in tree.body for name in exported_names(statement)}
        bound |= taken & set(listed)
    public = {name for name in bound if not name.startswith("_") or name == "__version__"}
    assert set(listed) == public
