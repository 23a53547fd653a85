"""``python -m kitlib.train CONFIG.yaml``: one of a training's processes, started by ``kitlib.train.run``."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from kitlib import config, files
from kitlib.runtime import launch


def main() -> None:
    """Train as the file says; the first process leaves ``result.json`` beside it."""
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR
    logging.basicConfig(level=level, format="%(asctime)s %(name)s: %(message)s")
    from kitlib.train.build import build
    from kitlib.train.config import TrainConfig
    from kitlib.train.job import RESULT
    from kitlib.train.processes import join

    wanted = config.load(TrainConfig, Path(sys.argv[1]))
    with join() as here:
        reached = build(wanted, here).run()
        if here.main:
            files.write_json(Path(wanted.out) / RESULT, reached)


if __name__ == "__main__":
    launch.child(main)
