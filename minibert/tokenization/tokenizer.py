"""BertTokenizer: text → WordPiece ids, as transformers' tokenizer of the same name.

The splitting is done by the `tokenizers` package. Special tokens, truncation and padding are our
own: the package keeps them as settings of the tokenizer, which leak from one call (or from a
tokenizer.json: MiniLM's cuts at 128) into the next and are not safe to change between threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from minibert.errors import InputError
from minibert.io.json_io import read_json_object
from minibert.tokenization.files import read_tokenizer_json, read_vocab, wordpiece, write_vocab
from minibert.tokenization.truncation import Truncation, checked_length, cut, strategy_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = {
    "unk_token": UNK,
    "sep_token": SEP,
    "pad_token": PAD,
    "cls_token": CLS,
    "mask_token": MASK,
}

Padding = bool | Literal["longest", "max_length"]


class Encoding(NamedTuple):
    """One text, or one pair of texts, ready for the model."""

    ids: NDArray[np.int32]  # (S,) [CLS] a [SEP], or [CLS] a [SEP] b [SEP]
    type_ids: NDArray[np.int32]  # (S,) 0 up to the first [SEP], 1 after it
    truncated: bool


class BertTokenizer:
    """WordPiece with BERT's special tokens around it.

    `from_pretrained` and `from_vocab` make one. No call changes it, so threads may share it.
    """

    pad_token_id: int
    unk_token_id: int
    cls_token_id: int
    sep_token_id: int
    mask_token_id: int | None  # None: a vocabulary that was never used with masks
    model_max_length: int | None  # None: no limit is known

    def __init__(self, tokenizer: Tokenizer, settings: Mapping[str, Any] | None = None) -> None:
        """Own a tokenizer of the `tokenizers` package, which is changed here.

        settings: what tokenizer_config.json holds. InputError when a special token is missing.
        """
        from tokenizers.processors import TemplateProcessing

        self._tokenizer = tokenizer
        self._settings = dict(settings or {})
        self._settings.pop("name_or_path", None)  # where it lay on somebody's disk
        self.model_max_length = checked_length(self._settings.get("model_max_length"))
        self.pad_token_id, self.unk_token_id, self.cls_token_id, self.sep_token_id = (
            self._special(token) for token in (PAD, UNK, CLS, SEP)
        )
        self.mask_token_id = tokenizer.token_to_id(MASK)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        # "[SEP]" in a text is the special token, as in transformers.
        known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        vocab = tokenizer.get_vocab()
        tokenizer.add_special_tokens(
            [token for token in SPECIAL_TOKENS.values() if token in vocab and token not in known]
        )
        # Not used here, but by whoever opens the tokenizer.json that we save.
        tokenizer.post_processor = TemplateProcessing(
            single=f"{CLS}:0 $A:0 {SEP}:0",
            pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
            special_tokens=[(CLS, self.cls_token_id), (SEP, self.sep_token_id)],
        )

    @classmethod
    def from_vocab(cls, vocab: Sequence[str], /, **settings: Any) -> BertTokenizer:
        """A tokenizer from its pieces in the order of their ids (`##` marks a continuation).

        settings: as in tokenizer_config.json: do_lower_case=True, strip_accents=None (as
        do_lower_case), tokenize_chinese_chars=True, model_max_length=None.
        """
        return cls(wordpiece(vocab, settings), settings)

    @classmethod
    def from_pretrained(cls, name_or_directory: str | Path) -> BertTokenizer:
        """The tokenizer of a local directory or a hub name: tokenizer.json, else vocab.txt.

        tokenizer_config.json, where there is one, gives the settings of `from_vocab`; what it says
        rules over tokenizer.json, as in transformers. Raises InputError, naming the file.
        """
        directory = Path(name_or_directory)
        if not directory.is_dir():
            from minibert.hub import resolve_model

            directory = resolve_model(str(name_or_directory))
        config, whole, vocab = (
            directory / name for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt")
        )
        settings = read_json_object(config) if config.exists() else {}
        try:
            if whole.exists():
                return cls(read_tokenizer_json(whole, settings), settings)
            if vocab.exists():
                return cls.from_vocab(read_vocab(vocab), **settings)
        except InputError as error:
            raise InputError(f"{directory}: {error}") from error
        raise InputError(
            f"{directory}: wanted tokenizer.json or vocab.txt, it holds neither; "
            "copy them from the model this one was made from"
        )

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json.

        They are not replaced atomically: save into a staged directory, as save_checkpoint does.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(directory / "tokenizer.json"))
        write_vocab(directory / "vocab.txt", self._tokenizer.get_vocab())
        special = {
            name: token
            for name, token in SPECIAL_TOKENS.items()
            if self._tokenizer.token_to_id(token) is not None
        }
        settings = {"tokenizer_class": "BertTokenizer", **self._settings, **special}
        _write_json(directory / "tokenizer_config.json", settings)
        _write_json(directory / "special_tokens_map.json", special)

    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
    ) -> tuple[list[Encoding], int]:
        """Each text (with its pair) as ids of at most `max_length`, and how many were truncated.

        The fast way in, for training: no padding, no Python list a token. max_length counts the
        special tokens; None never truncates.
        """
        strategy = strategy_of(truncation)
        _check_texts("text", texts)
        if pairs is not None:
            _check_texts("text_pair", pairs)
            if len(pairs) != len(texts):
                raise InputError(
                    f"text_pair: got {len(pairs)} texts, wanted {len(texts)}, one for each text"
                )
        firsts = self._pieces(texts)
        seconds = [None] * len(firsts) if pairs is None else self._pieces(pairs)
        if pairs is None and strategy == "only_first":
            strategy = "longest_first"  # the same on one text, but it may leave nothing of it
        limit = max_length if strategy else None
        encodings = [
            self._join(first, second, limit, strategy)
            for first, second in zip(firsts, seconds, strict=True)
        ]
        return encodings, sum(encoding.truncated for encoding in encodings)

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: str | Sequence[str] | None = None,
        *,
        truncation: Truncation = False,
        max_length: int | None = None,
        padding: Padding = False,
        return_tensors: Literal["np"] | None = None,
    ) -> dict[str, Any]:
        """input_ids, token_type_ids and attention_mask, by transformers' conventions.

        One text gives lists of S ints, several texts lists of such lists; with return_tensors
        "np" both give int64 arrays (B, S). max_length counts the special tokens; where it is
        needed and not given it is `model_max_length`. Padding is on the right. An empty pair is a
        pair (transformers forgets it when it comes alone, but not in a list).
        """
        single = isinstance(text, str)
        if text_pair is not None and isinstance(text_pair, str) != single:
            raise InputError("text_pair: wanted one text for one text, or several for several")
        texts = [text] if isinstance(text, str) else text
        pairs = [text_pair] if isinstance(text_pair, str) else text_pair
        strategy = strategy_of(truncation)
        _check_padding(padding, return_tensors)
        if strategy or padding == "max_length":
            max_length = self._limit(max_length)
        elif max_length is not None:
            raise InputError(
                f"max_length: got {max_length}, which has no effect without truncation=True or "
                'padding="max_length"; pass one of them'
            )
        encodings, _ = self.encode(texts, pairs, max_length, truncation)
        rows = self._rows(encodings, padding, max_length)
        if return_tensors == "np":
            return {name: _array(values) for name, values in rows.items()}
        return {name: values[0] for name, values in rows.items()} if single else dict(rows)

    def decode(self, ids: int | Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of ids, the pieces of a word joined; case and spacing are not restored."""
        ids = [ids] if isinstance(ids, int) else [int(index) for index in ids]
        self.convert_ids_to_tokens(ids)  # an unknown id is an error; the package would skip it
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str: ...
    @overload
    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]: ...
    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> str | list[str]:
        """The piece of an id, or of each id; InputError for an id that has none."""
        if not isinstance(ids, int | np.integer):
            return [self.convert_ids_to_tokens(int(index)) for index in ids]
        token = self._tokenizer.id_to_token(int(ids)) if 0 <= ids < 2**32 else None
        if token is None:
            raise InputError(f"ids: got {ids}, wanted token ids from 0 to {len(self) - 1}")
        return token

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...
    @overload
    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...
    def convert_tokens_to_ids(self, tokens: str | list[str]) -> int | list[int]:
        """The id of a piece, or of each piece; that of [UNK] for one not in the vocabulary."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(token) for token in tokens]
        index = self._tokenizer.token_to_id(tokens)
        return self.unk_token_id if index is None else index

    @property
    def vocab_size(self) -> int:
        """Pieces in the vocabulary, tokens that were added to it later not counted."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        """All tokens; a model's word embedding table needs at least as many rows."""
        return self._tokenizer.get_vocab_size()

    def _special(self, token: str) -> int:
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise InputError(
                f"vocabulary: it lacks {token}, wanted a BERT vocabulary with {PAD}, {UNK}, {CLS} "
                f"and {SEP}; take the one the model was trained with"
            )
        return index

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def _join(
        self, first: list[int], second: list[int] | None, limit: int | None, strategy: str
    ) -> Encoding:
        """Cut two segments to `limit` and put the special tokens around them."""
        n1, n2 = len(first), len(second or ())
        specials = 2 if second is None else 3
        if limit is not None and n1 + n2 + specials > limit:
            n1, n2 = cut(n1, n2, limit - specials, strategy)
        ids = [self.cls_token_id, *first[:n1], self.sep_token_id]
        type_ids = np.zeros(n1 + n2 + specials, np.int32)
        if second is not None:
            type_ids[len(ids) :] = 1
            ids += [*second[:n2], self.sep_token_id]
        return Encoding(np.array(ids, np.int32), type_ids, n1 + n2 < len(first) + len(second or ()))

    def _limit(self, max_length: int | None) -> int:
        limit = self.model_max_length if max_length is None else checked_length(max_length)
        if limit is None:
            raise InputError(
                "max_length: not given, and tokenizer_config.json names no model_max_length; "
                "pass max_length=config.max_position_embeddings"
            )
        return limit

    def _rows(
        self, encodings: list[Encoding], padding: Padding, max_length: int | None
    ) -> dict[str, list[list[int]]]:
        lengths = [encoding.ids.size for encoding in encodings]
        width = max(lengths, default=0) if padding in (True, "longest") else 0
        width = (max_length or 0) if padding == "max_length" else width
        pads = [max(0, width - length) for length in lengths]
        return {
            "input_ids": [
                encoding.ids.tolist() + [self.pad_token_id] * pad
                for encoding, pad in zip(encodings, pads, strict=True)
            ],
            "token_type_ids": [
                encoding.type_ids.tolist() + [0] * pad
                for encoding, pad in zip(encodings, pads, strict=True)
            ],
            "attention_mask": [
                [1] * length + [0] * pad for length, pad in zip(lengths, pads, strict=True)
            ],
        }


def _check_padding(padding: object, return_tensors: object) -> None:
    if not isinstance(padding, bool) and padding not in ("longest", "max_length"):
        raise InputError(f"padding: got {padding!r}, wanted True, False, longest or max_length")
    if return_tensors not in (None, "np"):
        raise InputError(f'return_tensors: got {return_tensors!r}, wanted "np" or None')


def _check_texts(name: str, texts: object) -> None:
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InputError(f"{name}: got a {type(texts).__name__}, wanted a list of str")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(
                f"{name} {index}: got a {type(text).__name__} ({text!r}), wanted a str"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{name} {index}: got half of a surrogate pair at character {error.start}, wanted "
                'Unicode text; read the file as UTF-8, with errors="replace" if need be'
            ) from error


def _array(rows: list[list[int]]) -> NDArray[np.int64]:
    if len({len(row) for row in rows}) > 1:
        raise InputError(
            'return_tensors: texts of different lengths make no array; pass padding="longest"'
        )
    return np.array(rows, np.int64).reshape(len(rows), -1 if rows else 0)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
