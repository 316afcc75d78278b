"""Text → label: sentiment, topic, entailment, a rating."""

from __future__ import annotations

from typing import Any, ClassVar

from minibert.data.features import Features
from minibert.models import BertForSequenceClassification, BertPreTrainedModel
from minibert.pipelines.base import Pipeline, text_and_pair
from minibert.tasks.classification import Classification
from minibert.tokenization import BertTokenizer

_ONE = object()  # top_k was not given: the best label alone, and not in a list


class TextClassificationPipeline(Pipeline):
    """classify("some text") → [{"label": …, "score": …}], as transformers' pipeline does."""

    model_class: ClassVar[type[BertPreTrainedModel]] = BertForSequenceClassification
    head = "classifier"

    def __init__(
        self,
        model: BertForSequenceClassification,
        tokenizer: BertTokenizer,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(model, tokenizer, batch_size)
        self.task = Classification.of_config(model.config)

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Classify a text, a pair {"text", "text_pair"}, a list of them, or a stream.

        One result an input: {"label", "score"}, and a list with that one for a single text (an odd
        habit of transformers' pipeline). `top_k`: the list of the k best instead; None: of all.
        `function_to_apply`: "softmax", "sigmoid" or "none" (default: as the problem type wants).
        Texts longer than the model's position table are truncated.
        """
        result = super().__call__(inputs, **options)
        return [result] if isinstance(inputs, str) and "top_k" not in options else result

    def answers(
        self, inputs: list[Any], *, top_k: Any = _ONE, function_to_apply: str | None = None
    ) -> list[Any]:
        """One result an input, in their order."""
        if not inputs:
            return []
        texts, seconds = zip(*map(text_and_pair, inputs), strict=True)
        pairs = None if all(second is None for second in seconds) else list(seconds)
        encodings, truncated = self.tokenizer.encode(list(texts), pairs, self.max_length)
        if truncated:
            self.warn(f"{truncated} of {len(inputs)} texts were cut to {self.max_length} tokens")
        features = Features([e.ids for e in encodings], [e.type_ids for e in encodings])
        outputs = self.predict(features)
        if top_k is _ONE:
            return [row[0] for row in self.task.decode(outputs, 1, function_to_apply)]
        return self.task.decode(outputs, top_k, function_to_apply)
