"""The submission of a run's folds together, with what cross-validation tuned for them.

python tests/benchmarks/submit.py RUN --data DIR [--stage longer wide] [--way "+ scales by type"]
    [--scale 1.5] [--further 2.0] [--by-type astro=1.0,0.75 cort=1.5,2.0]

Judges the stages' held-out frames as ``ablation.py`` does, looking at them in one of its ways, tunes the best
post-processing on all of them and applies it to the test images, which all folds' models predict together.
Writes submission.csv, post.yaml and the rows of the table, judged.json, to RUN/STAGE; of several stages, all
of whose models then predict together, to RUN/STAGE+STAGE.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

import ablation

from kitlib import config, files, predict, records
from kitlib.data import competition
from kitlib.post import thresholds
from kitlib.post.tuning import cross_validation
from kitlib.predict import PredictJob
from kitlib.submission import writer


def main() -> None:
    """Judge, tune, predict, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ablation.add_options(options)
    options.add_argument("--way", default="+ scales")
    options.add_argument("--kinds", nargs="+", choices=cross_validation.KINDS, default=["box", "product"])
    given = options.parse_args()
    ways = ablation.ways(given.scale, given.further, dict(given.by_type))
    if given.way not in ways:
        options.error(f"--way is none of {', '.join(ways)}")
    look, folder = ways[given.way], files.make_folder(given.run / "+".join(given.stage))
    truth, frames = ablation.held_out(given.data, given.folds)
    found = ablation.out_of_fold(given.run, given.stage, given.way, look, truth)
    judged = cross_validation.cross_validate(frames, found, kinds=given.kinds)
    ablation.show(judged.rows)
    files.write_json(folder / "judged.json", [asdict(row) for row in judged.rows])
    config.save(judged.tuned, folder / "post.yaml")

    test, post = competition.test(given.data), judged.tuned.post
    job = PredictJob(
        tuple(path for fold in given.folds for path in ablation.weights(given.run, given.stage, fold)),
        str(records.write_frames(folder / "test.npz", test)),
        str(folder / "test.csv"),
        replace(look, candidate_mask_thresholds=(), mask_threshold=post.mask_threshold),
    )
    final = [thresholds.apply(frame, post) for frame in predict.run(job).frames()]
    path = writer.write(folder / "submission.csv", final, test)
    print(f"{path}: {judged.best.name}, {judged.best.mean:.3f} expected")
    for frame in final:
        print(f"{frame.id}  {frame.category}  {len(frame.cells)} cells")


if __name__ == "__main__":
    main()
