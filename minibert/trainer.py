"""The training loop: batches, steps, evaluation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from minibert import training_state
from minibert.arguments import TrainingArguments
from minibert.data.features import BatchOrder, Features
from minibert.diagnosis import TrainingDiverged, first_not_finite
from minibert.errors import InputError
from minibert.evaluation import predict_logits
from minibert.files import atomic_write
from minibert.models import BertPreTrainedModel, Run
from minibert.optim import Optimizer, clip_scale, sum_into
from minibert.packing import PackedBatch
from minibert.progress import bar, say
from minibert.schedules import schedule
from minibert.throughput import measured_gemm_rate, training_flops
from minibert.training_state import TrainingState

# What may differ between a run and its continuation; all else decides the numbers.
FREE_TO_CHANGE = frozenset(
    {
        *("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "dry_run"),
        *("logging_steps", "disable_tqdm", "save_total_limit", "save_strategy", "save_steps"),
        *("eval_strategy", "eval_steps", "eval_tokens_per_batch", "load_best_model_at_end"),
        *("metric_for_best_model", "greater_is_better", "early_stopping_patience"),
    }
)


class Interrupted(Exception):
    """Ctrl-C: the run was saved, and the message says how to go on."""


class Trainer:
    """Fine-tunes `model` on `train`, and measures it on `evaluate` with `task`.

    `task` needs two things: metrics(logits, labels) → {name: value}, and best_metric.
    """

    def __init__(
        self,
        model: BertPreTrainedModel,
        args: TrainingArguments,
        task: Any,
        train: Features,
        evaluate: Features | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.model, self.args, self.task, self.tokenizer = model, args, task, tokenizer
        self.train_features, self.eval_features = train, evaluate
        self.output_dir = Path(args.output_dir)
        if not len(train):
            raise InputError("the training file holds no examples")
        self.order = BatchOrder(
            train.lengths,
            args.seed,
            args.per_device_train_batch_size * args.gradient_accumulation_steps,
            args.max_tokens_per_batch
            and args.max_tokens_per_batch * args.gradient_accumulation_steps,
            args.length_window if args.group_by_length else 1,
        )
        self.total_steps = args.max_steps if args.max_steps > 0 else self._steps_of_epochs()
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
            workers=workers,
        )
        self.gradients = [parameters.zeros_like() for _ in range(workers.threads)]
        self.state = TrainingState()
        self.metric = args.metric_for_best_model or task.best_metric
        greater = args.greater_is_better
        self.greater = self.metric not in ("loss", "mse") if greater is None else greater
        self._stop_requested = False
        self._pending: list[StepResult] = []

    # ---- The loop ----

    def train(self) -> TrainingState:
        """Train to the end; returns the final state, with the best weights in the model if asked.

        Raises TrainingDiverged on a loss that is not finite, Interrupted after Ctrl-C.
        """
        args = self.args
        if args.resume_from_checkpoint:
            self._resume(training_state.find(self.output_dir, args.resume_from_checkpoint))
        gemm = measured_gemm_rate(self.model.xp, self.model.workers, args.dtype)
        meter = Meter(self.model, gemm)
        batches = self._batches(self.state.step)
        progress = bar(
            self.total_steps, "training", unit=" steps", initial=self.state.step,
            disable=args.disable_tqdm,
        )  # fmt: skip
        with self._interruptible(), progress:
            while self.state.step < self.total_steps:
                epoch, indices, ends_epoch = next(batches)
                batch = self.train_features.batch(indices)
                result = self.step(batch)
                meter.count(batch)
                progress.update()
                if self.state.step % args.logging_steps == 0 or self.state.step == self.total_steps:
                    self._log_step(result, epoch, meter, batch, progress)
                if self._after_step(ends_epoch):
                    break
                if self._stop_requested:
                    self._save_and_interrupt()
        if args.load_best_model_at_end and self.state.best_step is not None:
            self._load_best()
        return self.state

    def step(self, batch: PackedBatch) -> StepResult:
        """Forward, backward, clip, update. Nothing is read back from the device here."""
        args, xp, buffers = self.args, self.model.xp, self.gradients
        for gradients in buffers:
            gradients.flat.fill(0)
        run = Run(args.seed, self.state.step)
        shards = len(buffers) * args.gradient_accumulation_steps
        output = self.model.accumulate_gradients(batch, buffers, run, shards)
        total = buffers[0].flat
        norm = sum_into(xp, total, [other.flat for other in buffers[1:]], self.model.workers)
        rate = args.learning_rate * self.rate(self.state.step)
        if isinstance(norm, float) and not math.isfinite(norm):
            self._fail(batch)  # before the parameters are spoilt; on a GPU it shows when logged
        scale = clip_scale(norm, args.max_grad_norm) if args.max_grad_norm > 0 else 1.0
        self.optimizer.step(total, rate, scale)
        self.state.step += 1
        return StepResult(output.loss, norm, rate)

    def dry_run(self) -> str:
        """One step on the largest batch of the first epoch: what the run will take."""
        batches = self.order.epoch(0)
        tokens = [int(self.train_features.lengths[indices].sum()) for indices in batches]
        largest = self.train_features.batch(batches[tokens.index(max(tokens))])
        self.step(largest)  # touches all memory, compiles all kernels
        start = time.perf_counter()
        result = self.step(largest)
        loss = float(result.loss)  # waits for the device
        seconds = time.perf_counter() - start
        whole = seconds * self.total_steps * (sum(tokens) / len(tokens)) / max(tokens)
        return (
            f"dry run: loss {loss:.4f}, {seconds:.2f} s for a step of {max(tokens)} tokens, about "
            f"{whole / 60:.1f} minutes for {self.total_steps} steps without evaluation; peak "
            f"memory {self.model.xp.memory() / 2**30:.2f} GiB. Nothing was written."
        )

    def _batches(self, start: int) -> Iterator[tuple[float, Any, bool]]:
        """Endless (epoch with fraction, example numbers, last of its epoch), from step `start`."""
        step, epoch = 0, 0
        while True:
            batches = self.order.epoch(epoch)
            for i, indices in enumerate(batches):
                if step >= start:
                    yield epoch + (i + 1) / len(batches), indices, i + 1 == len(batches)
                step += 1
            epoch += 1

    def _steps_of_epochs(self) -> int:
        whole = int(self.args.num_train_epochs)
        steps = sum(len(self.order.epoch(epoch)) for epoch in range(whole))
        fraction = self.args.num_train_epochs - whole
        if fraction:
            steps += math.ceil(fraction * len(self.order.epoch(whole)))
        return max(steps, 1)

    def _after_step(self, ends_epoch: bool) -> bool:
        """Evaluate and save when it is time; True to stop early."""
        args, step = self.args, self.state.step
        last = step == self.total_steps

        def due(strategy: str, every: int) -> bool:
            return strategy != "no" and (
                last or (ends_epoch if strategy == "epoch" else step % every == 0)
            )

        stop = False
        if self.eval_features is not None and due(args.eval_strategy, args.eval_steps):
            stop = self._evaluate_and_compare()
        if due(args.save_strategy, args.save_steps) or self.state.best_step == step:
            self._save_checkpoint()
        return stop

    # ---- Evaluation ----

    def evaluate(self, features: Features, description: str = "evaluating") -> dict[str, float]:
        """loss and the task's metrics on labelled features."""
        logits, loss = predict_logits(
            self.model,
            features,
            tokens_per_batch=self.args.eval_tokens_per_batch,
            description=description,
            quiet=self.args.disable_tqdm,
        )
        assert loss is not None
        metrics: dict[str, float] = self.task.metrics(logits, features.labels)
        return {"loss": loss} | metrics

    def _evaluate_and_compare(self) -> bool:
        """Measure, keep the best; True when patience has run out."""
        assert self.eval_features is not None
        metrics = self.evaluate(self.eval_features)
        if self.metric not in metrics:
            raise InputError(
                f"metric_for_best_model {self.metric!r} is unknown: choose one of "
                f"{', '.join(metrics)}"
            )
        state, value = self.state, metrics[self.metric]
        better = state.best_metric is None or (
            value > state.best_metric if self.greater else value < state.best_metric
        )
        if better:
            state.best_metric, state.best_step, state.evaluations_without_gain = (
                value,
                state.step,
                0,
            )
        else:
            state.evaluations_without_gain += 1
        self._log({"step": state.step} | {f"eval_{name}": v for name, v in metrics.items()})
        shown = "  ".join(f"{name} {v:.4f}" for name, v in metrics.items())
        say(f"step {state.step:>6}  evaluation  {shown}{'  (best)' if better else ''}")
        patience = self.args.early_stopping_patience
        return patience is not None and state.evaluations_without_gain >= patience

    # ---- Log ----

    def _log_step(
        self, result: StepResult, epoch: float, meter: Meter, batch: PackedBatch, progress: Any
    ) -> None:
        loss, norm = float(result.loss), float(result.gradient_norm)
        if not math.isfinite(loss) or not math.isfinite(norm):
            self._fail(batch)
        rates = meter.read()
        self._log(
            {"step": self.state.step, "epoch": round(epoch, 4), "loss": loss,
             "learning_rate": result.rate, "grad_norm": norm, **rates}
        )  # fmt: skip
        line = (
            f"loss {loss:.4f}  lr {result.rate:.2e}  |g| {norm:.2f}  "
            f"{rates['tokens_per_second']:,.0f} tokens/s  {rates['gemm_share']:.0%} of GEMM"
        )
        if progress.disable:
            say(f"step {self.state.step:>6}/{self.total_steps}  epoch {epoch:.2f}  {line}")
        else:
            progress.set_postfix_str(line)

    def _log(self, entry: dict[str, Any]) -> None:
        """Append to log.jsonl; the state keeps the log too, so that a resumed run continues it."""
        self.state.log.append(entry)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with (self.output_dir / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _fail(self, batch: PackedBatch) -> None:
        where = first_not_finite(self.model, batch, self.gradients[0])
        raise TrainingDiverged(
            f"step {self.state.step}: the loss or its gradient is not finite; the first such "
            f"tensor is {where}. Nothing was saved at this step: lower --learning_rate, or look at "
            "the data"
        )

    # ---- Checkpoints ----

    def _identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of this run."""
        args = {k: v for k, v in asdict(self.args).items() if k not in FREE_TO_CHANGE}
        args |= {"threads": self.model.workers.threads, "total_steps": self.total_steps}
        return args | {"data": self.train_features.fingerprint()}

    def _save_checkpoint(self) -> Path:
        path = self.output_dir / f"checkpoint-{self.state.step}"
        training_state.save(
            path, self.model, self.tokenizer, self.optimizer, self.state, self._identity()
        )
        training_state.rotate(self.output_dir, self.args.save_total_limit, self.state.best_step)
        return path

    def _resume(self, checkpoint: Path) -> None:
        self.state = training_state.load(checkpoint, self.model, self.optimizer, self._identity())
        lines = "".join(json.dumps(entry) + "\n" for entry in self.state.log)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        atomic_write(self.output_dir / "log.jsonl", lines)  # later lines belong to lost steps
        say(f"resumed from {checkpoint}, step {self.state.step} of {self.total_steps}")

    def _load_best(self) -> None:
        best = self.output_dir / f"checkpoint-{self.state.best_step}"
        if self.state.best_step != self.state.step and best.is_dir():
            training_state.load_weights(best, self.model)

    def _interruptible(self) -> _Interruptible:
        return _Interruptible(self)

    def request_stop(self) -> None:
        """Finish the current step, save, and raise Interrupted."""
        self._stop_requested = True

    def _save_and_interrupt(self) -> None:
        path = self._save_checkpoint()
        raise Interrupted(
            f"interrupted and saved at step {self.state.step} of {self.total_steps}; go on with "
            f"the same command and --resume_from_checkpoint {path}"
        )


class StepResult(NamedTuple):
    """What a step leaves on the device; floats on the CPU."""

    loss: Any
    gradient_norm: Any
    rate: float


class _Interruptible:
    """Inside the block Ctrl-C and SIGTERM finish the step and save; a second one stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def __enter__(self) -> None:
        self.previous: dict[int, Any] = {}
        try:
            for number in self.SIGNALS:
                self.previous[number] = signal.signal(number, self._handle)
        except ValueError:  # signals reach the main thread only; elsewhere there is nothing to do
            self.previous.clear()

    def _handle(self, number: int, frame: Any) -> None:
        say("interrupted: finishing this step and saving (again to stop at once)")
        self.trainer.request_stop()
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def __exit__(self, *error: object) -> None:
        self._restore()
