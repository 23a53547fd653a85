"""What plain papermill gives a notebook: its second code cell checks it and completes it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from kitlib.errors import KitError
from kitlib.runtime import lock
from kitlib.stages import notebooks

STAGE = "02_pretrain_livecell"
CHECK = f"""\
import json
from kitlib import stages
stage = stages.begin("{STAGE}", data, out)
given = stage.parameters(globals())
config = stage.training(given, ["cell"], model=given.model(1))
rate = config.schedule
found = {{"name": rate.name, "max_lr": rate.max_lr, "warmup": rate.warmup_iters}}
found |= {{"amp": config.amp, "max_iter": config.max_iter, "options": config.model.options}}
(stage.folder / "found.json").write_text(json.dumps(found))
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs the parameters of notebook 02 and a cell that checks them; returns what the training would get.

    ``in_kernel``: as papermill does. Otherwise the cells run in a shell of this process, which is quicker.
    """
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "train").mkdir(parents=True)
    (data / "train.csv").write_text("id\n")
    whole = nbformat.read(notebooks.notebook(STAGE), as_version=4)
    (cell,) = [c for c in whole.cells if "parameters" in c.metadata.get("tags", ())]
    short = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_code_cell(CHECK)], metadata=whole.metadata)
    nbformat.write(short, tmp_path / "short.ipynb")
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))

    def execute(in_kernel: bool = False, **parameters: Any) -> dict[str, Any]:
        notebook = papermill.execute_notebook(
            tmp_path / "short.ipynb",
            tmp_path / "executed.ipynb",
            {"data": str(data), "out": str(out), **parameters},
            kernel_name="python3",
            progress_bar=False,
            prepare_only=not in_kernel,
        )
        for prepared in [] if in_kernel else notebook.cells:
            shell.run_cell(prepared.source, store_history=True).raise_error()
        return json.loads((out / STAGE / "found.json").read_text())

    yield execute
    InteractiveShell.clear_instance()
    lock.leave(out)


def test_a_dictionary_is_laid_over_the_notebook_s_own(run) -> None:
    """As ``papermill -y 'schedule: {max_lr: 1e-3}'`` and ``-y 'amp: off'`` arrive in the notebook."""
    found = run(in_kernel=True, schedule={"max_lr": "1e-3"}, amp=False, max_iter=7)
    assert found == {
        "name": "cosine",
        "max_lr": 1e-3,
        "warmup": 20,
        "amp": "off",
        "max_iter": 7,
        "options": {"roi_batch": 64},
    }


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"max_itre": 3}, "unknown parameter of 02_pretrain_livecell: 'max_itre': did you mean 'max_iter'?"),
        ({"max_iter": "many"}, "02_pretrain_livecell.max_iter must be a whole number, not 'many'"),
        (
            {"optim": {"clip_nrom": 1}},
            "unknown key in 02_pretrain_livecell.optim 'clip_nrom': did you mean 'clip_norm'?",
        ),
    ],
)
def test_a_wrong_name_or_value_is_refused(run, parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(KitError, match=re.escape(problem)):
        run(**parameters)
