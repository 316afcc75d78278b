"""The training loop: batches, steps, evaluation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minibert.data.features import Features, TrainingData
from minibert.errors import InputError, Interrupted, TrainingDiverged
from minibert.io.files import atomic_write
from minibert.io.numbers import counted, four_places
from minibert.io.progress import bar, say
from minibert.models import BertPreTrainedModel, Run
from minibert.optim import LossScale, Optimizer, clip_scale, global_norm, schedule
from minibert.packing import PackedBatch
from minibert.tasks.base import Measure
from minibert.training import state as training_state
from minibert.training.arguments import TrainingArguments
from minibert.training.diagnosis import first_not_finite
from minibert.training.evaluation import predict
from minibert.training.interruption import Interruptible
from minibert.training.mean_loss import MeanLoss
from minibert.training.state import LOG, TrainingState
from minibert.training.throughput import Meter, measured_gemm_rate

# What may differ between a run and its continuation; all else decides the numbers.
FREE_TO_CHANGE = frozenset(
    {
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "dry_run"),
        "gradient_checkpointing",
        *("logging_steps", "disable_tqdm", "save_total_limit", "save_strategy", "save_steps"),
        *("eval_strategy", "eval_steps", "load_best_model_at_end"),
        *("eval_tokens_per_batch", "per_device_eval_batch_size", "early_stopping_patience"),
    }
)

# What a configuration decides besides the shapes of the parameters, which are checked anyway.
SETTINGS = (
    *("hidden_act", "layer_norm_eps", "problem_type", "label2id"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
)


def lower_is_better(metric: str) -> bool:
    """Whether a metric falls where a model gets better."""
    return metric in ("loss", "mse", "perplexity") or metric.endswith("_loss")


class Trainer:
    """Trains `model` on `train`, and measures it on `evaluate` with `task`."""

    def __init__(
        self,
        model: BertPreTrainedModel,
        args: TrainingArguments,
        task: Measure,
        train: TrainingData,
        evaluate: Features | None = None,
        tokenizer: Any = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """identity: what, besides the arguments, a resumed run must share, as JSON."""
        self.model, self.args, self.task, self.tokenizer = model, args, task, tokenizer
        self.train_features, self.eval_features = train, evaluate
        self.further_identity = dict(identity or {})
        self.output_dir = Path(args.output_dir)
        for name, part in (("training", train), ("validation", evaluate)):
            if isinstance(part, Features) and not (len(part) and model.has_targets(part)):
                lack = "labels" if len(part) else "examples"
                raise InputError(f"the {name} data has no {lack}")
        self.order = train.order(
            args.seed,
            args.per_device_train_batch_size * args.gradient_accumulation_steps,
            args.max_tokens_per_batch
            and args.max_tokens_per_batch * args.gradient_accumulation_steps,
            args.length_window if args.group_by_length else 1,
        )
        epochs = args.num_train_epochs
        self.total_steps = args.max_steps if args.max_steps > 0 else self.order.steps(epochs)
        warmup = args.warmup_steps or math.ceil(self.total_steps * args.warmup_ratio)
        self.rate = schedule(
            args.lr_scheduler_type, num_training_steps=self.total_steps, num_warmup_steps=warmup
        )
        parameters, workers = model.parameters, model.workers
        self.optimizer = Optimizer(
            model.xp,
            parameters.flat,
            parameters.layout.decayed,
            rule=args.optim,
            weight_decay=args.weight_decay,
            beta1=args.adam_beta1,
            beta2=args.adam_beta2,
            eps=args.adam_epsilon,
            momentum=args.momentum,
            tensors=list(parameters.layout.starts.values()),
            workers=workers,
        )
        self.gradients = parameters.zeros_like()
        model.gradient_checkpointing = args.gradient_checkpointing
        self.loss_scale = LossScale(model.xp) if model.xp.precision == "fp16" else None
        self.state = TrainingState()
        self.mean_loss = MeanLoss(model.xp)
        self.metric = self._known_metric()
        greater = args.greater_is_better
        self.greater = not lower_is_better(self.metric) if greater is None else greater
        self._stop_requested: int | None = None  # by which signal
        self._last: tuple[StepResult, PackedBatch] | None = None  # the latest step, …
        self._found_finite = 0  # … and the latest that is known to be well

    # ---- The loop ----

    def train(self) -> TrainingState:
        """Train to the end; returns the final state, with the best weights in the model if asked.

        Raises TrainingDiverged on a loss that is not finite, Interrupted after Ctrl-C or SIGTERM.
        """
        args = self.args
        if args.resume_from_checkpoint:
            self._resume(training_state.find(self.output_dir, args.resume_from_checkpoint))
        else:
            training_state.start_afresh(self.output_dir, args.overwrite_output_dir)
        gemm = measured_gemm_rate(self.model.xp, self.model.workers, args.dtype)
        meter = Meter(self.model, gemm)
        batches = self._prepared(self.state.step)
        coming = next(batches)
        progress = bar(
            self.total_steps, "training", unit=" steps", initial=self.state.step,
            disable=args.disable_tqdm,
        )  # fmt: skip
        with Interruptible(self.request_stop), progress:
            while self.state.step < self.total_steps and not self._out_of_patience():
                epoch, batch, ends_epoch = coming
                result = self.step(batch)
                self.state.epoch = round(epoch, 4)
                self.mean_loss.add(result.loss)
                coming = next(batches)  # while a GPU still computes
                meter.count(batch)
                progress.update()
                if self.state.step % args.logging_steps == 0 or self.state.step == self.total_steps:
                    self._log_step(result, meter, progress)
                with meter.paused():
                    self._after_step(ends_epoch)
                if self._stop_requested is not None:
                    self._save_and_interrupt(self._stop_requested)
        self._check_finite()
        if args.load_best_model_at_end and self.state.best_step is not None:
            self._load_best()
        return self.state

    def step(self, batch: PackedBatch) -> StepResult:
        """Forward, backward, clip, update. Nothing is read back from the device here."""
        args, model, gradient = self.args, self.model, self.gradients.flat
        gradient.fill(0)
        run, scaling = Run(args.seed, self.state.step), self.loss_scale
        model.loss_scale = None if scaling is None else scaling.scale
        shards = model.workers.threads * args.gradient_accumulation_steps
        rate = args.learning_rate * self.rate(self.state.step)
        with np.errstate(over="ignore", invalid="ignore"):  # `_check_step` says it better
            output = model.accumulate_gradients(batch, self.gradients, run, shards)
            norm = global_norm(model.xp, gradient, model.workers)
            if scaling is not None:
                norm, scale = scaling.unscale(norm, args.max_grad_norm)
            else:
                scale = clip_scale(norm, args.max_grad_norm) if args.max_grad_norm > 0 else 1.0
            result = StepResult(self.state.step + 1, output.loss, norm, rate)
            self._last = result, batch
            if isinstance(norm, float):  # on a GPU it shows when the step is logged or saved
                self._check_step()
            self.optimizer.step(gradient, rate, scale)
        self.state.step += 1
        return result

    def dry_run(self, written: str = "Nothing was written.") -> str:
        """Two steps on the largest batch of each of the run's parts: what the run will take.

        written: the last sentence, for a script that has written something before.
        """
        parts, whole = [], 0.0
        for batches, steps in self.order.parts(self.total_steps):
            tokens = [self.train_features.tokens(which) for which in batches]
            largest = max(tokens)
            loss, seconds = self._timed(self.train_features.batch(batches[tokens.index(largest)]))
            whole += seconds * steps * (sum(tokens) / len(tokens)) / largest
            parts.append(f"loss {loss:.4f}, {seconds:.2f} s for a step of {largest} tokens")
        return (
            f"dry run: {'; then '.join(parts)}; about {whole / 60:.1f} minutes for "
            f"{counted(self.total_steps, 'step')} without evaluation; peak memory "
            f"{self.model.xp.memory() / 2**30:.2f} GiB. {written}"
        )

    def _timed(self, batch: PackedBatch) -> tuple[float, float]:
        """The loss and the seconds of a step; one before it touches memory, compiles kernels."""
        self.step(batch)
        self.model.xp.synchronize()
        start = time.perf_counter()
        loss = self._number(self.step(batch).loss)  # waits for the device
        return loss, time.perf_counter() - start

    def _batches(self, start: int) -> Iterator[tuple[float, Any, bool]]:
        """Endless (how often the data were seen after it, which batch, last of its epoch).

        From step `start` on. An epoch in which a phase ends counts in part.
        """
        step, epoch, seen = 0, 0, 0.0
        while step < start and step + (count := self.order.count(epoch)) <= start:
            seen += self.order.share(epoch)
            step, epoch = step + count, epoch + 1
        while True:
            batches, share = self.order.epoch(epoch), self.order.share(epoch)
            for i in range(max(0, start - step), len(batches)):
                yield seen + share * (i + 1) / len(batches), batches[i], i + 1 == len(batches)
            seen += share
            step += len(batches)
            epoch += 1

    def _prepared(self, start: int) -> Iterator[tuple[float, PackedBatch, bool]]:
        """`_batches` with the batches themselves, already on their way to the device."""
        for epoch, which, ends_epoch in self._batches(start):
            yield epoch, self.model.send_ahead(self.train_features.batch(which)), ends_epoch

    def _after_step(self, ends_epoch: bool) -> None:
        """Evaluate and save when it is time."""
        args, step = self.args, self.state.step
        last = step == self.total_steps

        def due(strategy: str, every: int) -> bool:
            return strategy != "no" and (
                last or (ends_epoch if strategy == "epoch" else step % every == 0)
            )

        if self.eval_features is not None and due(args.eval_strategy, args.eval_steps):
            self._check_finite()
            self._evaluate_and_compare()
        is_best = args.load_best_model_at_end and self.state.best_step == step
        if is_best or due(args.save_strategy, args.save_steps):
            self._save_checkpoint()

    # ---- Evaluation ----

    def evaluate(self, features: Features, description: str = "evaluating") -> dict[str, float]:
        """loss and the task's metrics on labelled features."""
        outputs, loss = predict(
            self.model,
            features,
            tokens_per_batch=self.args.eval_tokens_per_batch,
            batch_size=self.args.per_device_eval_batch_size,
            description=description,
            quiet=self.args.disable_tqdm,
            reduce=getattr(self.task, "reduce", None),
        )
        if loss is None:
            raise InputError("evaluation needs labels, and these examples have none")
        return {"loss": loss} | self.task.metrics(outputs, features)

    def _known_metric(self) -> str:
        """The metric that chooses the best checkpoint; transformers' "eval_f1" is "f1"."""
        wanted = (self.args.metric_for_best_model or self.task.best_metric).removeprefix("eval_")
        names = [name for name in self.task.metric_names if not name.endswith("_baseline")]
        known = ("loss", *names)
        if wanted not in known:
            raise InputError(
                f"--metric_for_best_model {wanted!r} is unknown: choose one of {', '.join(known)}"
            )
        return wanted

    def _out_of_patience(self) -> bool:
        patience = self.args.early_stopping_patience
        return patience is not None and self.state.evaluations_without_gain >= patience

    def _evaluate_and_compare(self) -> None:
        """Measure, and note whether it is the best so far."""
        assert self.eval_features is not None
        metrics = self.evaluate(self.eval_features)
        state, value = self.state, metrics[self.metric]
        better = state.best_metric is None or (
            value > state.best_metric if self.greater else value < state.best_metric
        )
        if better:
            state.best_metric, state.best_step = value, state.step
            state.evaluations_without_gain = 0
        else:
            state.evaluations_without_gain += 1
        of_step = {"step": state.step, "epoch": state.epoch}
        self._log(of_step | {f"eval_{name}": v for name, v in metrics.items()})
        shown = "  ".join(f"{name} {four_places(v)}" for name, v in metrics.items())
        say(f"step {state.step:>6}  evaluation  {shown}{'  (best)' if better else ''}")
        if self._out_of_patience():
            vain = counted(state.evaluations_without_gain, "evaluation")
            say(f"stopped early: no gain in {vain}")

    # ---- Log ----

    def _log_step(self, result: StepResult, meter: Meter, progress: Any) -> None:
        self._check_step()
        loss, norm = self.mean_loss.take(), self._number(result.gradient_norm)
        rates = meter.read()
        self._log(
            {"step": self.state.step, "epoch": self.state.epoch, "loss": loss,
             "learning_rate": result.rate, "grad_norm": norm, **rates}
        )  # fmt: skip
        line = (
            f"loss {loss:.4f}  lr {result.rate:.2e}  |g| {norm:.2f}  "
            f"{rates['tokens_per_second']:,.0f} tokens/s  {rates['gemm_share']:.0%} of GEMM"
        )
        if progress.disable:
            state = self.state
            say(f"step {state.step:>6}/{self.total_steps}  epoch {state.epoch:.2f}  {line}")
        else:
            progress.set_postfix_str(line)

    def _log(self, entry: dict[str, Any]) -> None:
        """Append to log.jsonl; the state keeps the log too, so that a resumed run continues it."""
        self.state.log.append(entry)
        path = self.output_dir / LOG
        with training_state.saving(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    # ---- NaN and infinity ----

    def _check_step(self) -> None:
        """Raise TrainingDiverged unless the latest step's loss and gradient are finite."""
        if self._last is None:
            return
        result = self._last[0]
        numbers = self._number(result.loss), self._number(result.gradient_norm)
        vanished = self.loss_scale is not None and self._number(self.loss_scale.scale) < 1
        if not all(map(math.isfinite, numbers)) or vanished:
            self._fail()
        self._found_finite = result.step

    def _check_finite(self) -> None:
        """The same for the parameters after it, before anything is made of them."""
        self._check_step()
        if self._last is not None:
            finite = self.model.xp.isfinite(self.model.parameters.flat).all()
            if not self._number(finite):
                self._fail()

    def _number(self, value: Any) -> float:
        """A float or a 0-d array as a float; waits for the device."""
        return float(self.model.xp.to_host(value))

    def _fail(self) -> None:
        assert self._last is not None
        result, batch = self._last
        first = min(self._found_finite + 1, result.step)  # a GPU is not asked after each step
        steps = f"step {result.step}" if first == result.step else f"step {first} to {result.step}"
        where = first_not_finite(self.model, batch, self.gradients)
        raise TrainingDiverged(
            f"{steps}: the loss or its gradient is not finite; the first such tensor is {where}. "
            "Nothing was saved at this step: lower --learning_rate, or look at the data"
        )

    # ---- Checkpoints ----

    def _identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of this run."""
        args = {k: v for k, v in asdict(self.args).items() if k not in FREE_TO_CHANGE}
        args |= {name: getattr(self.model.config, name) for name in SETTINGS}
        args |= {"backend": self.model.xp.name, "threads": self.model.workers.threads}
        args |= {"total_steps": self.total_steps, "data": self.train_features.fingerprint()}
        return args | self.further_identity

    def _save_checkpoint(self) -> Path:
        self._check_finite()
        path, state = self.output_dir / f"checkpoint-{self.state.step}", self.state
        state.loss_sum, state.loss_steps = self.mean_loss.state()
        with training_state.saving(path):
            training_state.save(
                path, self.model, self.tokenizer, self.optimizer, state, self._identity(),
                self.loss_scale,
            )  # fmt: skip
        training_state.rotate(
            self.output_dir, self.args.save_total_limit, {state.step, state.best_step}
        )
        return path

    def _resume(self, checkpoint: Path) -> None:
        self.state = training_state.load(
            checkpoint, self.model, self.optimizer, self._identity(), self.loss_scale
        )
        self.mean_loss = MeanLoss(self.model.xp, self.state.loss_sum, self.state.loss_steps)
        lines = "".join(json.dumps(entry) + "\n" for entry in self.state.log)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        atomic_write(self.output_dir / LOG, lines)  # later lines belong to lost steps
        say(f"resumed from {checkpoint}, step {self.state.step} of {self.total_steps}")

    def _load_best(self) -> None:
        if self.state.best_step == self.state.step:
            return
        best = self.output_dir / f"checkpoint-{self.state.best_step}"
        if best.is_dir():
            training_state.load_weights(best, self.model)
        else:  # resumed in another output_dir, or removed by hand
            say(f"warning: {best}, the best checkpoint, is gone; the model stays at the last step")

    def request_stop(self, by: int = signal.SIGINT) -> None:
        """Finish the current step, save, and raise Interrupted, as at the signal `by`."""
        self._stop_requested = by

    def _save_and_interrupt(self, by: int) -> None:
        path = self._save_checkpoint()
        raise Interrupted(
            f"interrupted and saved at step {self.state.step} of {self.total_steps}; go on with "
            f"the same command and --resume_from_checkpoint {shlex.quote(str(path))}",
            by,
        )


class StepResult(NamedTuple):
    """What a step leaves on the device; floats on the CPU."""

    step: int  # from 1
    loss: Any
    gradient_norm: Any
    rate: float
