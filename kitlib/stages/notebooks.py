"""What a notebook file holds: its code, and the parameters in its cell tagged ``parameters``."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

from kitlib import files
from kitlib.errors import KitError


class CodeCell(NamedTuple):
    """The source of a code cell and its tags."""

    source: str
    tags: tuple[str, ...]


def code(path: Path) -> list[CodeCell]:
    """The code cells of a notebook, in order.

    Raises:
        KitError: it is missing, cut short or no notebook.
    """
    notebook = files.read_json(path)
    try:
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        return [CodeCell("".join(c["source"]), tuple(c["metadata"].get("tags", ()))) for c in cells]
    except (AttributeError, KeyError, TypeError) as error:
        raise KitError(f"{path} is not a notebook that can be read ({error!r}); restore it") from error


def parameters(path: Path) -> dict[str, Any]:
    """Names and default values of a notebook's parameters, in order.

    Raises:
        KitError: the notebook cannot be read, or the cell holds anything but plain values.
    """
    source = "\n".join(cell.source for cell in code(path) if "parameters" in cell.tags)
    try:
        lines = ast.parse(source).body
        return {_target(line).id: ast.literal_eval(line.value) for line in lines}
    except (SyntaxError, ValueError, AttributeError) as error:
        where = f" line {error.lineno}" if getattr(error, "lineno", None) else ""
        raise KitError(
            f"{path}: the cell of parameters may hold only 'name = value' lines with plain values{where} "
            f"({error}); compute others in the next cell"
        ) from error


def _target(line: ast.stmt) -> ast.Name:
    """What a line "name = value" or "name: type = value" assigns to."""
    return line.target if isinstance(line, ast.AnnAssign) else line.targets[0]


def injected() -> list[str]:
    """The names that papermill was given for the notebook of this kernel; none where it did not start it.

    It puts them into a cell of their own, which begins with a comment.
    """
    from IPython import get_ipython

    shell = get_ipython()
    cells = shell.user_ns.get("In", ()) if shell is not None else ()
    own = [cell for cell in cells if cell.startswith("# Parameters\n")]
    return [target.id for cell in own for line in ast.parse(cell).body for target in line.targets]


def fingerprint(path: Path) -> str:
    """A fingerprint of what a notebook does: its code. Texts and outputs do not change it."""
    return files.fingerprint(*(cell.source for cell in code(path)))
