"""The training loop: step, record, evaluate, save, until done."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventStorage
from torch import nn

from kitlib import config as configs
from kitlib.errors import KitError
from kitlib.model import checkpoint
from kitlib.model.checkpoint import Checkpoint
from kitlib.runtime import heartbeat
from kitlib.train import events, optim, resume, schedule
from kitlib.train.config import TrainConfig
from kitlib.train.loader import TrainingLoader
from kitlib.train.processes import Processes
from kitlib.train.step import Outcome, Stepper

_logger = logging.getLogger(__name__)

_WINDOW = 100  # iterations among which skipped steps are counted
_MAX_SKIPPED = 10  # of them; more end the training


@dataclass(frozen=True)
class _Best:
    """The best evaluation so far, and how many came after it."""

    map: float = -1.0
    iteration: int = 0
    since: int = 0


class Trainer:
    """One process's side of a training.

    Args:
        config: the whole training.
        here: this process among its peers.
        model: on this process's device, in training mode, the same on every process.
        loader: this process's share of the batches.
        evaluate: scores a model, the same on every process; None to do without.
        data: fingerprint of the frames.
        notes: sentences to say before the first iteration.
    """

    def __init__(
        self,
        config: TrainConfig,
        here: Processes,
        model: nn.Module,
        loader: TrainingLoader,
        evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
        data: str = "",
        notes: Sequence[str] = (),
    ):
        self.config, self.here, self.model, self.loader = config, here, model, loader
        self.evaluate, self.data, self.notes, self.out = evaluate, data, notes, Path(config.out)
        optimizer = optim.build(model, config.optim, config.schedule.max_lr)
        clip_norm = config.optim.clip_norm
        self.step = Stepper(model, optimizer, here, config.amp, config.accumulate, clip_norm)
        self.average = optim.MovingAverage(model, config.ema_decay) if config.ema_decay else None
        self.iteration, self.best = 0, _Best()
        self.skipped: deque[bool] = deque(maxlen=_WINDOW)

    @property
    def evaluated(self) -> nn.Module:
        """The model with the weights that count: their average, where there is one yet."""
        return self.average.model if self.average is not None and self.average.count else self.model

    @property
    def done(self) -> bool:
        """Whether the last iteration, or the end of patience, is reached."""
        return self.iteration >= self.config.max_iter or 0 < self.config.patience <= self.best.since

    def run(self) -> dict[str, Any]:
        """Train to the end, from the folder's checkpoint if it has one.

        Returns:
            ``iteration`` reached, ``map`` and ``best_iteration`` of the best evaluation (None without one).

        Raises:
            KitError: the checkpoint is another training's, losses that are not numbers, no memory, no space.
        """
        notes = [*self.notes, *self._resume()]
        if self.here.main:
            configs.save(self.config, self.out / "config.yaml")
        self.events = events.Events(self.out, self.iteration, self.here.main)
        for note in notes:
            self.events.note(self.iteration, note)
        with EventStorage(self.iteration) as storage:
            batches = iter(self.loader)
            while not self.done:
                self._iterate(batches)
                storage.step()
                if self.evaluate is not None and self._due(self.config.eval_every):
                    self._evaluate(self.evaluate)
                if self.done or (self.config.checkpoint_every and self._due(self.config.checkpoint_every)):
                    self._save_checkpoint()
        return self._finish()

    def _due(self, every: int) -> bool:
        return self.iteration == self.config.max_iter or (every > 0 and self.iteration % every == 0)

    def _iterate(self, batches: Iterator[list[dict[str, Any]]]) -> None:
        start = time.perf_counter()
        heartbeat.beat("waiting for the processes that prepare its images")
        batch = next(batches)
        read = time.perf_counter()
        heartbeat.beat(f"training, iteration {self.iteration + 1}")
        lr = schedule.lr_at(self.config.schedule, self.iteration, self.config.max_iter)
        optim.set_lr(self.step.optimizer, lr)
        outcome = self.step(batch)
        if outcome.applied and self.average is not None:
            self.average.update(self.model)
        self.iteration += 1
        seconds = time.perf_counter() - start
        self._report(outcome)
        row = {"iteration": self.iteration, "total_loss": outcome.total_loss, **outcome.losses, "lr": lr}
        row |= {"grad_norm": outcome.grad_norm, "seconds": seconds, "data_seconds": read - start}
        row |= {"images_per_s": self.config.images_per_batch / seconds, **self.here.memory()}
        self.events.write(row)

    def _report(self, outcome: Outcome) -> None:
        """Report what was not as it should be; give up when that is too often."""
        self.skipped.append(bool(outcome.faulty))
        if not outcome.faulty:
            return
        text = f"loss or gradient is not a number on the images {', '.join(outcome.faulty)}: step skipped"
        text += f", {sum(self.skipped)} of the last {len(self.skipped)}"
        self.events.note(self.iteration, text, skipped=list(outcome.faulty))
        if sum(self.skipped) > _MAX_SKIPPED:
            raise KitError(
                f"{text}; look at these images, or lower schedule.max_lr, set optim.clip_norm (to 5, say) "
                f"or use amp bf16 or off in place of fp16, and remove {self.config.out} to begin anew"
            )

    def _evaluate(self, evaluate: Callable[[nn.Module], dict[str, float]]) -> None:
        start = time.perf_counter()
        heartbeat.beat("evaluating")
        scores = evaluate(self.evaluated)
        row = {"iteration": self.iteration, **scores, "eval_seconds": time.perf_counter() - start}
        self.events.write(row)
        if scores["map"] > self.best.map:
            self.best = _Best(scores["map"], self.iteration)
            self._save_weights("weights_best.pth", scores["map"])
        else:
            self.best = replace(self.best, since=self.best.since + 1)
        if self.done and self.iteration < self.config.max_iter:
            text = f"stopped early: no better map in {self.best.since} evaluations"
            self.events.note(self.iteration, text)

    def _save_checkpoint(self) -> None:
        """Write a checkpoint; every process has a part in it."""
        heartbeat.beat("writing a checkpoint")
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise KitError(
                f"the weights are no longer finite at iteration {self.iteration}; no checkpoint was written. "
                f"Lower schedule.max_lr or set optim.clip_norm, and remove {self.config.out} to begin anew"
            )
        states = self.here.gather(resume.random_state(self.here.device))
        if self.here.main:
            resume.save(self.out, self._checkpoint(training=self._training(states)))
            self.events.write_curves()

    def _checkpoint(
        self, map_score: float | None = None, training: dict[str, Any] | None = None
    ) -> Checkpoint:
        """The weights that count as they are now."""
        return Checkpoint(
            self.config.model,
            self.config.categories,
            self.iteration,
            self.evaluated.state_dict(),
            map_score,
            training,
        )

    def _training(self, random_states: list[dict[str, Any]]) -> dict[str, Any]:
        """What ``_resume`` goes on from."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "step": self.step.state_dict(),
            "sampler": self.loader.sampler.state_dict(),
            "random": random_states,
            "best": asdict(self.best),
            "config": configs.to_dict(self.config),
            "data": self.data,
        }

    def _save_weights(self, name: str, map_score: float | None) -> None:
        if self.here.main:
            heartbeat.beat("writing weights")
            checkpoint.save(self.out / name, self._checkpoint(map_score))

    def _resume(self) -> list[str]:
        """Go on from the folder's checkpoint if it has one; what the user should know of it."""
        found, note = resume.load(self.out)
        notes = [note] if note else []
        reached = self.here.gather(found.iteration if found else 0)
        if len(set(reached)) > 1:
            raise KitError(
                f"the processes see different checkpoints in {self.out} (iterations {reached}); "
                "it must be a folder that all hosts share"
            )
        if found is None or found.training is None:
            return notes
        state = found.training
        resume.check(state, self.config, self.data)
        self.iteration, self.best = found.iteration, _Best(**state["best"])
        self.model.load_state_dict(state["model"])
        self.step.load_state_dict(state["step"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.loader.sampler.load_state_dict(state["sampler"])
        _logger.info("going on from iteration %d", self.iteration)
        if len(state["random"]) != self.here.world:
            began = f"begun with {len(state['random'])} processes, going on with {self.here.world}"
            return [*notes, f"{began}: proposals are sampled anew"]
        resume.set_random_state(state["random"][self.here.rank], self.here.device)
        return notes

    def _finish(self) -> dict[str, Any]:
        scored = self.best.iteration > 0
        self._save_weights("weights_last.pth", None)
        self.events.write_curves()
        self.events.close()
        return {
            "iteration": self.iteration,
            "map": self.best.map if scored else None,
            "best_iteration": self.best.iteration if scored else None,
        }
