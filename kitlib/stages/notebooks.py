"""The notebooks: the stages' names, where they and their results lie, and what a notebook file holds."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kitlib import files
from kitlib.errors import KitError, unknown
from kitlib.runtime.launch import Interrupted

STAGES = ("01_eda", "02_pretrain_livecell", "03_train", "04_pseudolabel", "05_retrain", "06_submit")

#: What each stage reads of earlier ones; 03 may start from other weights, and nothing reads what 01 finds.
NEEDS = {
    "03_train": ("02_pretrain_livecell",),
    "04_pseudolabel": ("03_train",),
    "05_retrain": ("03_train", "04_pseudolabel"),
    "06_submit": ("03_train",),
}

TextOrPath = TypeVar("TextOrPath", str, Path)

#: The checkout: notebooks/ and outputs/ lie beside the package.
ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"


def resolve(name: str) -> str:
    """The stage that ``name`` or a beginning of it ("03") names.

    Raises:
        KitError: none does, or several do.
    """
    found = [stage for stage in STAGES if stage.startswith(name)] if name else []
    if len(found) > 1:
        raise KitError(f"stage '{name}' may be any of {', '.join(found)}; write more of it")
    if not found:
        raise unknown("stage", name, STAGES)
    return found[0]


def notebook(stage: str, folder: Path = NOTEBOOKS) -> Path:
    """The notebook of a stage.

    Raises:
        KitError: it is not there.
    """
    path = folder / f"{stage}.ipynb"
    if not path.is_file():
        raise KitError(f"{path} does not exist; run from a whole checkout of the kit")
    return path


def whole_path(text: str | Path) -> Path:
    """The absolute path of a folder that the user named.

    Raises:
        KitError: it has bytes that are no UTF-8, which notebooks cannot hold, or the ~ of an unknown user.
    """
    try:
        return check_text(Path(text).expanduser().resolve())
    except RuntimeError:
        raise KitError(
            f"{text}: there is no such user's home folder; write the whole path, or ./{text}"
        ) from None


def named_file(path: str) -> Path:
    """The file that a parameter names, from where the notebook ran."""
    return NOTEBOOKS / Path(path).expanduser()


def check_text(text: TextOrPath) -> TextOrPath:
    """``text``, if it can be written as UTF-8.

    Raises:
        KitError: it is a path, or holds one, that the file system has in other bytes.
    """
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(str(text)).decode("utf-8", "backslashreplace")
        raise KitError(f"{shown[:80]} has bytes that are no UTF-8; rename that file or folder") from None
    return text


def default_out(name: str) -> Path:
    """Where a run leaves its results by default; ``name``: of its profile, or of the data."""
    return ROOT / "outputs" / name


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


def takes(path: Path) -> str:
    """How long a notebook takes with its own parameters, as the table at its top says; empty without one."""
    text = "".join(line for cell in files.read_json(path)["cells"][:1] for line in cell["source"])
    found = re.search(r"\*\*takes\*\* \| (.+?)(?: with the values below.*)? \|", text)
    return found[1] if found else ""


def parameters(path: Path) -> dict[str, Any]:
    """Names and default values of a notebook's parameters, in order.

    Raises:
        KitError: the notebook cannot be read, or the cell holds anything but plain values.
    """
    source = "\n".join(cell.source for cell in code(path) if "parameters" in cell.tags)
    try:
        return dict(map(_assignment, ast.parse(source).body))
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", None)
        where = f" line {number}" if number else ""
        raise KitError(
            f"{path}: the cell of parameters may hold only 'name = value' lines with plain values{where} "
            f"({error}); compute others in the next cell"
        ) from error


def _assignment(line: ast.stmt) -> tuple[str, Any]:
    """Name and value of a line "name = value" or "name: type = value".

    Raises:
        ValueError: it is another kind of line, or the value is not plain.
    """
    targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
    value = getattr(line, "value", None)
    if len(targets) != 1 or not isinstance(targets[0], ast.Name) or value is None:
        raise ValueError(ast.unparse(line)[:80])
    return targets[0].id, ast.literal_eval(value)


def injected() -> list[str]:
    """The names that papermill was given for the notebook of this kernel; none where it did not start it.

    It puts them into a cell of their own, which begins with a comment.
    """
    from IPython import get_ipython

    shell = get_ipython()
    cells = shell.user_ns.get("In", ()) if shell is not None else ()
    own = [cell for cell in cells if cell.startswith("# Parameters\n")]
    return [_assignment(line)[0] for cell in own for line in ast.parse(cell).body]


def skip_cells() -> None:
    """Let the further cells of this kernel do nothing, until one begins a stage again."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return

    def emptied(lines: list[str]) -> list[str]:
        if any("stages.begin(" in line for line in lines):
            shell.input_transformers_cleanup.remove(emptied)
            return lines
        return []

    shell.input_transformers_cleanup.append(emptied)


def quiet_errors() -> None:
    """Let a notebook show a KitError or an interrupt as one sentence instead of a traceback."""
    try:
        from IPython import get_ipython
    except ImportError:
        return
    shell = get_ipython()
    if shell is None:
        return

    def show(
        shell: Any, kind: type, error: BaseException, traceback: Any, tb_offset: int | None = None
    ) -> list:
        if isinstance(error, KeyboardInterrupt):
            kept = error if isinstance(error, Interrupted) else "interrupted; finished stages stay"
            error = Interrupted(f"{kept}, run the cell again to go on")
        lines = [f"\x1b[31m{kind.__name__}\x1b[0m: {error}"]
        shell._showtraceback(kind, error, lines)
        return lines

    shell.set_custom_exc((KitError, KeyboardInterrupt), show)


def fingerprint(path: Path) -> str:
    """A fingerprint of what a notebook does: its code but for the parameters. No text or output counts."""
    return files.fingerprint(*(cell.source for cell in code(path) if "parameters" not in cell.tags))
