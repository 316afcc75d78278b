"""What all pipelines share: a model with its tokenizer, called with one input, many or a stream."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

from minibert.backend import Backend
from minibert.config import BertConfig
from minibert.data.features import Features
from minibert.errors import InputError
from minibert.models import BertPreTrainedModel
from minibert.pipelines.loading import config_of, named, not_ours, tokenizer_of
from minibert.pipelines.options import (
    AS_USUAL,
    Reading,
    as_mapping,
    as_usual,
    backend_of,
    check_known,
    dtype_of,
    keywords,
    of_ours,
)
from minibert.pipelines.texts import encoded
from minibert.pipelines.trained_for import check_architectures, check_trained, untrained
from minibert.tasks.base import Outputs
from minibert.tasks.question_windows import UNREAD
from minibert.tokenization import BertTokenizer
from minibert.tokenization.encoding import Encoding
from minibert.training.evaluation import predict

STREAM = 64  # inputs that a stream is read ahead
READING = [field.name for field in fields(Reading) if field.init]


class Pipeline:
    """answer(input) → result, with the arguments and results of transformers' pipelines.

    A list of inputs gives a list of results; any other iterable is a stream and gives an iterator,
    which reads `batch_size` inputs (64) ahead. Inputs are batched by length, so their order costs
    nothing. The options of a call are the keywords of `answers` and the fields of `Reading`; those
    given at construction hold for all calls that do not say otherwise.
    """

    task: ClassVar[str]
    """The task's name."""

    model_class: ClassVar[type[BertPreTrainedModel]]
    default_model: ClassVar[str | None] = None

    has_head: ClassVar[bool] = True
    """Whether answers come of a head that must have been trained for the task."""

    nested: ClassVar[str | None] = None
    """An option that holds fields of `Reading`; transformers has one where the rest lies open."""

    of_model: ClassVar[tuple[str, ...]] = ()
    """Arguments of the model's from_pretrained that need not stand in `model_kwargs`."""

    cut: ClassVar[str] = "texts"
    """What is cut where it is too long."""

    remedy: ClassVar[str] = "the rest of them is not read: shorten or split them"
    """What to do about that."""

    def __init__(self, model: Any, tokenizer: BertTokenizer, **options: Any) -> None:
        """`options`: those of a call, for all calls that do not say otherwise."""
        self.model, self.tokenizer = model, tokenizer
        self.options = self._checked(options)
        self.quiet = True
        """False: progress bars."""

    # ---- In and out of directories ----

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | BertPreTrainedModel,
        *,
        config: str | Path | BertConfig | None = None,
        tokenizer: str | Path | BertTokenizer | None = None,
        revision: str | None = None,
        device: object = None,
        backend: str | Backend = "auto",
        threads: int | None = None,
        dtype: object = "float32",
        torch_dtype: object = None,
        model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """From a directory that `scripts/finetune.py` or transformers wrote, or a hub name.

        Or from a model that is loaded already, with its `tokenizer`, which is one or the name of
        one. config: one, or a directory's or hub's, instead of the model's own. revision: of a
        model on the hub. device: "cpu" (-1), "cuda" (0), by transformers' names; or backend, ours.
        torch_dtype: an older name of dtype. model_kwargs: further arguments of the model's
        from_pretrained. options: those of a call.
        """
        cls._checked(options, [*keywords(cls.from_pretrained), *cls.of_model])
        for_model = dict(as_mapping("model_kwargs", model_kwargs))
        for_model |= {name: options.pop(name) for name in cls.of_model if name in options}
        backend = backend_of(device, backend)
        dtype = dtype_of(dtype if torch_dtype is None else torch_dtype)
        tokenizer = tokenizer_of(tokenizer)
        if not isinstance(model, str | Path):
            if (threads, dtype, for_model) != (None, "float32", {}):
                raise InputError("the model is loaded already: pass threads, dtype, … to its class")
            return cls(cls._loaded(model, backend, config, tokenizer), tokenizer, **options)  # type: ignore[arg-type]  # None is refused
        with named(model, revision) as directory:
            arguments: dict[str, Any] = {"backend": backend, "threads": threads, "dtype": dtype}
            own = config_of(config) or BertConfig.from_pretrained(directory)
            check_architectures(own, cls.task, model)
            arguments |= {"config": own} | for_model
            found = cls.model_class.from_pretrained(directory, **arguments)
            if cls.has_head:
                check_trained(found, cls.task, model)
            return cls(found, tokenizer or BertTokenizer.from_pretrained(directory), **options)

    @classmethod
    def _loaded(
        cls, model: Any, backend: str | Backend, config: object, tokenizer: object
    ) -> BertPreTrainedModel:
        """A model that came as an object, if it will do."""
        if not isinstance(model, cls.model_class):
            raise not_ours("model", model, f"minibert.{cls.model_class.__name__}")
        if tokenizer is None:
            raise InputError("a loaded model comes without its tokenizer: pass tokenizer=… as well")
        if config is not None and config != model.config:
            raise InputError("config: the model is loaded already, and has its own; leave it out")
        name = backend if isinstance(backend, str) else backend.name
        if name not in ("auto", model.xp.name):
            raise InputError(
                f"the model is loaded on {model.xp.name}, and {name} is asked for: load it there, "
                f'{type(model).__name__}.from_pretrained(…, backend="{name}")'
            )
        reason = untrained(model, cls.task) if cls.has_head else ""
        if reason and not model.parameters.is_flat:  # nor has it been trained since
            print(f"warning: the model {reason}: its answers are random", file=sys.stderr)
        return model

    def save_pretrained(self, directory: str | Path) -> None:
        """Write model and tokenizer as a directory that minibert and transformers load."""
        self.model.save_pretrained(directory, tokenizer=self.tokenizer)

    # ---- Calls ----

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """The result of one input, a list of results of a list, an iterator over a stream."""
        options = self.options | self._checked(options)
        reading = Reading(**{name: options.pop(name) for name in READING if name in options})
        if isinstance(inputs, str | Mapping):
            result = self.answers([inputs], reading, **options)[0]
            self.report(reading)
            return result
        if isinstance(inputs, list | tuple):
            results = self.answers(list(inputs), reading, **options)
            self.report(reading)
            return results
        if isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__"):  # as torch's data sets
            return self._stream(inputs, reading, options)
        raise InputError(f"wanted a text, several, or a stream of them, got {inputs!r:.80}")

    def _stream(
        self, inputs: Iterable[Any], reading: Reading, options: dict[str, Any]
    ) -> Iterator[Any]:
        ahead, start = iter(inputs), 0
        try:
            while chunk := list(islice(ahead, reading.batch_size or STREAM)):
                try:
                    results = self.answers(chunk, reading, **options)
                except InputError as error:
                    yield from self._until(error, chunk, start, replace(reading), options)
                yield from results
                start += len(chunk)
        finally:
            self.warn(reading)

    def _until(
        self,
        error: InputError,
        chunk: list[Any],
        start: int,
        reading: Reading,
        options: dict[str, Any],
    ) -> Iterator[Any]:
        """The results of a chunk before the input that is to blame, and then the error."""
        self.answers([], reading, **options)  # an option may be to blame
        for number, value in enumerate(chunk, start):
            try:
                yield self.answers([value], reading, **options)[0]
            except InputError as own:
                error, start = own, number
                break
        where = f" (counted from input {start} of the stream)" if start else ""
        raise type(error)(f"{error}{where}") from error

    def answers(self, *args: Any, **options: Any) -> list[Any]:
        """answers(inputs, reading, …) → one result an input, in their order."""
        raise NotImplementedError  # abstract: each pipeline defines it

    @classmethod
    def _checked(cls, options: Mapping[str, Any], others: Sequence[str] = ()) -> dict[str, Any]:
        """Options of a call, the nested ones beside the rest.

        InputError for one that is unknown (`others` are known too), or that no reading can have.
        """
        nested = [cls.nested] if cls.nested else []
        known = [*keywords(cls.answers), *nested, *READING]
        owner = f"pipeline {cls.task!r}"
        flat = of_ours(owner, options)
        check_known(owner, flat, [*known, *others])
        for name in nested:
            inner = of_ours(name, as_mapping(name, flat.pop(name, None)))
            check_known(name, inner, READING)
            flat |= inner
        flat = as_usual(flat, cls.answers, Reading)
        Reading(**{name: flat[name] for name in READING if name in flat})
        return flat

    # ---- Texts → outputs ----

    def read(
        self,
        texts: Sequence[str],
        pairs: Sequence[str | None] | None = None,
        reading: Reading = AS_USUAL,
    ) -> Outputs:
        """The model's outputs for texts, or for pairs."""
        encodings = self.encode(texts, pairs, reading)
        ids, type_ids = [e.ids for e in encodings], [e.type_ids for e in encodings]
        return self.predict(Features(ids, type_ids), reading)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str | None] | None, reading: Reading
    ) -> list[Encoding]:
        """Texts, pairs, or some of both, as ids; those that were cut are noted."""
        limit = self.limit(reading)
        encodings, cut = encoded(self.tokenizer, texts, pairs, limit, reading.strategy)
        reading.note(len(texts), cut, limit)
        return encodings

    def predict(self, features: Features, reading: Reading) -> Outputs:
        """The model's outputs for encoded inputs."""
        return predict(
            self.model,
            features,
            batch_size=reading.batch_size,
            description="predicting",
            quiet=self.quiet,
        )[0]

    @property
    def max_length(self) -> int:
        """Tokens that the model's position table holds."""
        return int(self.model.config.max_position_embeddings)

    def limit(self, reading: Reading) -> int:
        """Tokens to which texts are cut."""
        return min(self.max_length, reading.max_length or self.max_length)

    def report(self, reading: Reading) -> None:
        """What a call's notes say, at its end; InputError where nothing could be read."""
        notes = reading.notes
        if notes.problem is not None and notes.unread == notes.texts:
            raise notes.problem
        self.warn(reading)

    def warn(self, reading: Reading) -> None:
        """A line on stderr for each kind of texts that were not read, or not to their ends."""
        notes = reading.notes
        if notes.cut:
            print(
                f"warning: {notes.cut} of {notes.texts} {self.cut} were cut to {notes.limit} "
                f"tokens; {self.remedy}",
                file=sys.stderr,
            )
        if notes.unread:
            print(
                f"warning: {notes.unread} of {notes.texts} questions got the empty answer: "
                f"{UNREAD}",
                file=sys.stderr,
            )

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        model = f"{type(self.model).__name__} on {self.model.xp.name}"
        return f"{type(self).__name__}({self.task!r}, {model}{options})"
