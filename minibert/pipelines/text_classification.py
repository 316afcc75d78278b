"""Text → label: sentiment, topic, entailment, a rating."""

from __future__ import annotations

from typing import Any, ClassVar

from minibert.data.labels import ProblemType
from minibert.models import BertForSequenceClassification, BertPreTrainedModel
from minibert.pipelines.base import Pipeline
from minibert.pipelines.options import AS_USUAL, Reading, check_whole
from minibert.pipelines.texts import pairs_of
from minibert.tasks.classification import Classification
from minibert.tokenization import BertTokenizer

_ONE = object()  # top_k was not given: the best label alone, and not in a list


class TextClassificationPipeline(Pipeline):
    """classify("some text") → [{"label": …, "score": …}], as transformers' pipeline does."""

    task = "text-classification"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForSequenceClassification

    def __init__(
        self,
        model: Any,
        tokenizer: BertTokenizer,
        **options: Any,
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.decoder = Classification.of_config(model.config)

    @property
    def problem_type(self) -> ProblemType:
        """What the labels are: one of several, any of several, or a number."""
        return self.decoder.problem_type

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Classify a text, a pair {"text", "text_pair"}, a list of them, or a stream.

        One result an input: {"label", "score"}, and a list with that one for a single text (an odd
        habit of transformers' pipeline). `top_k`: the list of the k best instead (0: an empty
        one); None: of all. `function_to_apply`: "softmax", "sigmoid" or "none" (default: as the
        problem type wants). Texts longer than the model's position table are cut, with a warning
        unless truncation=True says so, or with truncation=False an error.
        """
        result = super().__call__(inputs, **options)
        return [result] if isinstance(inputs, str) and "top_k" not in options else result

    def answers(
        self,
        inputs: list[Any],
        reading: Reading = AS_USUAL,
        *,
        top_k: Any = _ONE,
        function_to_apply: str | None = None,
    ) -> list[Any]:
        """One result an input, in their order."""
        if top_k is not _ONE and top_k is not None:
            check_whole("top_k", top_k, 0)
        if not inputs:
            return []
        outputs = self.read(*self._texts(inputs), reading)
        if top_k is _ONE:
            return [row[0] for row in self.decoder.decode(outputs, 1, function_to_apply)]
        return self.decoder.decode(outputs, top_k, function_to_apply)

    def _texts(self, inputs: list[Any]) -> tuple[list[str], list[str | None] | None]:
        """The texts of inputs, and second texts where they are pairs."""
        return pairs_of(inputs)
