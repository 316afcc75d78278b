"""Two texts → whether the second one follows the first."""

from __future__ import annotations

from typing import Any, ClassVar

from minibert.errors import InputError
from minibert.models import BertForNextSentencePrediction, BertPreTrainedModel
from minibert.pipelines.text_classification import TextClassificationPipeline
from minibert.tasks.classification import Classification
from minibert.tokenization import BertTokenizer

LABELS = {"IsNext": 0, "NotNext": 1}  # Devlin et al., 3.1; no configuration names them


class NextSentencePipeline(TextClassificationPipeline):
    """follows({"text": …, "text_pair": …}) → {"label": "IsNext", "score": 0.9}.

    transformers has no such pipeline. Inputs, options and results are those of text-classification;
    an input is always a pair, and the other label is "NotNext".
    """

    task = "next-sentence-prediction"
    model_class: ClassVar[type[BertPreTrainedModel]] = BertForNextSentencePrediction

    def __init__(
        self, model: BertForNextSentencePrediction, tokenizer: BertTokenizer, **options: Any
    ) -> None:
        super().__init__(model, tokenizer, **options)
        self.decoder = Classification("single_label_classification", LABELS)

    def _texts(self, inputs: list[Any]) -> tuple[list[str], list[str | None] | None]:
        texts, pairs = super()._texts(inputs)
        if pairs is None or None in pairs:
            number = 0 if pairs is None else pairs.index(None)
            wanted = '{"text": …, "text_pair": …}'
            raise InputError(f"input {number}: wanted {wanted}, got {inputs[number]!r:.80}")
        return texts, pairs
