"""BertTokenizer: text → WordPiece ids, as transformers' tokenizer of the same name.

The splitting is done by the `tokenizers` package. Special tokens, truncation and padding are our
own: the package keeps them as settings of the tokenizer, which leak from one call (or from a
tokenizer.json: MiniLM's cuts at 128) into the next and are not safe to change between threads.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from minibert.errors import CheckpointError, InputError
from minibert.tokenization.checks import check_pairs, check_texts, is_one
from minibert.tokenization.encoding import AlignedEncoding, Encoding, Pieces, framed
from minibert.tokenization.files import read_directory, tokenizer_of, write_directory
from minibert.tokenization.padding import Padding, as_array, check_padding, padded_rows
from minibert.tokenization.truncation import (
    Truncation,
    checked_length,
    cut,
    strategy_of,
    windows,
)

if TYPE_CHECKING:
    from minibert.tokenization.files import Vocabulary

PAD, UNK, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = {
    "unk_token": UNK,
    "sep_token": SEP,
    "pad_token": PAD,
    "cls_token": CLS,
    "mask_token": MASK,
}

Words = Sequence[str]  # a text that is split into words already


class BertTokenizer:
    """WordPiece with BERT's special tokens around it.

    No call changes it, so threads may share it.
    """

    pad_token_id: int
    unk_token_id: int
    cls_token_id: int
    sep_token_id: int
    mask_token_id: int | None  # None: a vocabulary that was never used with masks
    model_max_length: int | None  # None: no limit is known

    def __init__(
        self,
        vocab: Vocabulary | None = None,
        do_lower_case: bool | None = None,
        *,
        vocab_file: str | Path | None = None,
        **settings: Any,
    ) -> None:
        """From a vocab.txt, or pieces with their ids, as transformers' tokenizer of this name.

        vocab: a path; {piece: id}; the pieces in the order of their ids (`##` marks a
        continuation); or a tokenizer of the `tokenizers` package, which is changed here and knows
        its settings. vocab_file: an older name of it. settings: as in tokenizer_config.json:
        do_lower_case=True, strip_accents=None (as do_lower_case), tokenize_chinese_chars=True,
        model_max_length=None. InputError when a special token is missing.
        """
        from tokenizers.processors import TemplateProcessing

        if do_lower_case is not None:
            settings["do_lower_case"] = do_lower_case
        tokenizer = tokenizer_of(vocab_file if vocab is None else vocab, settings)
        self._tokenizer, self._settings = tokenizer, settings
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
        """A tokenizer from its pieces in the order of their ids; settings: see the class."""
        return cls(vocab, **settings)

    @classmethod
    def from_pretrained(cls, name_or_directory: str | Path) -> BertTokenizer:
        """The tokenizer of a local directory or a hub name: tokenizer.json, else vocab.txt.

        tokenizer_config.json, where there is one, gives the settings; what it says rules over
        tokenizer.json, as in transformers. Raises InputError, naming the file.
        """
        directory = Path(name_or_directory)
        if not directory.is_dir():
            from minibert.hub import resolve_model

            directory = resolve_model(str(name_or_directory))
        try:
            vocab, settings = read_directory(directory)
            return cls(vocab, **settings)
        except CheckpointError:  # it names the file
            raise
        except InputError as error:
            raise InputError(f"{directory}: {error}") from error

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer.json, vocab.txt, tokenizer_config.json and special_tokens_map.json.

        They are not replaced atomically: save into a staged directory, as save_checkpoint does.
        """
        special = {
            name: token
            for name, token in SPECIAL_TOKENS.items()
            if self._tokenizer.token_to_id(token) is not None
        }
        write_directory(Path(directory), self._tokenizer, self._settings, special)

    def fingerprint(self) -> str:
        """A hash of all that decides the ids of a text."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()[:16]

    @property
    def normalization(self) -> dict[str, bool]:
        """do_lower_case, strip_accents and tokenize_chinese_chars, as they take effect.

        Empty where a tokenizer.json brought a normalizer of another kind.
        """
        from tokenizers.normalizers import BertNormalizer

        normalizer = self._tokenizer.normalizer
        if not isinstance(normalizer, BertNormalizer):
            return {}
        lower, strip = normalizer.lowercase, normalizer.strip_accents
        return {
            "do_lower_case": lower,
            "strip_accents": lower if strip is None else strip,
            "tokenize_chinese_chars": normalizer.handle_chinese_chars,
        }

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
        strategy = _strategy(truncation, pairs)
        check_pairs(texts, pairs)
        firsts = self.piece_ids(texts)
        seconds = [None] * len(firsts) if pairs is None else self.piece_ids(pairs)
        limit = max_length if strategy else None
        encodings = [
            self._join(first, second, limit, strategy)
            for first, second in zip(firsts, seconds, strict=True)
        ]
        return encodings, sum(encoding.truncated for encoding in encodings)

    def piece_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text's pieces, without special tokens: the fastest way in."""
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def continues(self) -> NDArray[np.bool_]:
        """(V,) by id: whether a piece begins with ##, so that it belongs to the word before it."""
        ids = self._tokenizer.get_vocab()
        result = np.zeros(max(ids.values()) + 1, np.bool_)
        result[[index for piece, index in ids.items() if piece.startswith("##")]] = True
        return result

    def of_plain_text(self) -> BertTokenizer:
        """A copy to which "[MASK]" in a text is five characters, not the special token.

        Its fingerprint is the same. Make it where it is used: pickled, it is a usual one again.
        """
        plain = copy.copy(self)
        plain._tokenizer = copy.deepcopy(self._tokenizer)
        plain._tokenizer.encode_special_tokens = True
        return plain

    def with_max_length(self, model_max_length: int) -> BertTokenizer:
        """A copy for a model that takes so many tokens."""
        other = copy.copy(self)
        other._settings = {**self._settings, "model_max_length": model_max_length}
        other.model_max_length = model_max_length
        return other

    def pieces(
        self, texts: Sequence[str] | Sequence[Words], is_split_into_words: bool = False
    ) -> list[Pieces]:
        """Each text, or with `is_split_into_words` each list of words, as pieces that know their
        place in it. Nothing is cut and no special token added.
        """
        check_texts("text", texts, is_split_into_words)
        batch = self._tokenizer.encode_batch(
            list(texts), is_pretokenized=is_split_into_words, add_special_tokens=False
        )
        return [
            Pieces(
                np.array(encoding.ids, np.int32),
                np.array(encoding.offsets, np.int32).reshape(-1, 2),
                np.array(encoding.word_ids, np.int32),
            )
            for encoding in batch
        ]

    def encode_aligned(
        self,
        texts: Sequence[str] | Sequence[Words],
        pairs: Sequence[str] | Sequence[Words] | None = None,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        *,
        stride: int | None = None,
        is_split_into_words: bool = False,
    ) -> list[AlignedEncoding]:
        """As `encode`, with each token's place in its text.

        With a `stride` nothing is cut off: a text that is too long becomes several windows, one
        after the other, which overlap by so many pieces.
        """
        strategy = _strategy(truncation, pairs)
        check_pairs(texts, pairs, is_split_into_words)
        sides = [self.pieces(texts, is_split_into_words)]
        if pairs is not None:
            sides.append(self.pieces(pairs, is_split_into_words))
        limit = max_length if strategy else None
        return [
            window
            for example, segments in enumerate(zip(*sides, strict=True))
            for window in self._windows(segments, limit, strategy, stride, example)
        ]

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Words],
        text_pair: str | Sequence[str] | Sequence[Words] | None = None,
        *,
        truncation: Truncation = False,
        max_length: int | None = None,
        stride: int = 0,
        padding: Padding = False,
        is_split_into_words: bool = False,
        return_tensors: Literal["np"] | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
    ) -> dict[str, Any]:
        """input_ids, token_type_ids and attention_mask, by transformers' conventions.

        One text gives lists of S ints, several texts lists of such lists; with return_tensors
        "np" both give int64 arrays (B, S). max_length counts the special tokens; where it is
        needed and not given it is `model_max_length`. Padding is on the right. An empty pair is a
        pair (transformers forgets it when it comes alone, but not in a list).

        is_split_into_words: a text is a list of words. Further entries on demand:
        return_offsets_mapping: "offset_mapping", (start, end) of each token in its text (in its
        word, where the text is a list of words), (0, 0) for special tokens;
        return_special_tokens_mask: "special_tokens_mask", 1 for what is not of the text;
        return_overflowing_tokens: what truncation cuts off follows in windows of its own, which
        overlap by `stride` pieces; "overflow_to_sample_mapping" has the text's number for each.
        """
        single = is_one(text, is_split_into_words)
        if text_pair is not None and is_one(text_pair, is_split_into_words) != single:
            raise InputError("text_pair: wanted one text for one text, or several for several")
        texts: Any = [text] if single else text
        pairs: Any = [text_pair] if single and text_pair is not None else text_pair
        check_padding(padding, return_tensors)
        if stride and not return_overflowing_tokens:
            raise InputError(
                f"stride: got {stride}, which has no effect without return_overflowing_tokens=True"
            )
        max_length = self._wanted_length(max_length, truncation, padding)
        encodings: Sequence[Encoding | AlignedEncoding]
        aligned = return_special_tokens_mask or return_offsets_mapping or return_overflowing_tokens
        if aligned or is_split_into_words:
            encodings = self.encode_aligned(
                texts, pairs, max_length, truncation,
                stride=stride if return_overflowing_tokens else None,
                is_split_into_words=is_split_into_words,
            )  # fmt: skip
        else:
            encodings, _ = self.encode(texts, pairs, max_length, truncation)
        rows = padded_rows(
            encodings, self.pad_token_id, padding, max_length,
            special_tokens_mask=return_special_tokens_mask,
            offset_mapping=return_offsets_mapping,
            sample_mapping=return_overflowing_tokens,
        )  # fmt: skip
        if return_tensors == "np":
            return {name: as_array(values) for name, values in rows.items()}
        if single and not return_overflowing_tokens:
            return {name: values[0] for name, values in rows.items()}
        return rows

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

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Pieces as text: those of a word joined, and no blank before punctuation."""
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(tokens))

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

    def _windows(
        self,
        segments: tuple[Pieces, ...],
        limit: int | None,
        strategy: str,
        stride: int | None,
        example: int,
    ) -> Iterator[AlignedEncoding]:
        """One text, or a pair, cut to `limit`; with a stride all of it, in windows."""
        n1, n2 = ([len(pieces.ids) for pieces in segments] + [0])[:2]
        room = n1 + n2 if limit is None else limit - 1 - len(segments)
        kept1, kept2 = cut(n1, n2, room, strategy) if n1 + n2 > room else (n1, n2)
        parts = [((0, kept1), (0, kept2))]
        if stride is not None:
            firsts, seconds = windows(n1, kept1, stride), windows(n2, kept2, stride)
            whole, *rest = itertools.product(firsts, seconds)
            # In the order of `tokenizers`, to which the first window of a text is not one of many.
            turn = len(seconds) - 1
            parts = [whole, *rest[turn:], *rest[:turn]]
        truncated = kept1 + kept2 < n1 + n2
        for spans in parts:
            chosen = [pieces.part(*span) for pieces, span in zip(segments, spans, strict=False)]
            yield framed(chosen, self.cls_token_id, self.sep_token_id, truncated, example)

    def _wanted_length(
        self, max_length: int | None, truncation: Truncation, padding: Padding
    ) -> int | None:
        """The length to cut or pad to, where one of them is asked for."""
        if strategy_of(truncation) or padding == "max_length":
            return self._limit(max_length)
        if max_length is not None:
            raise InputError(
                f"max_length: got {max_length}, which has no effect without truncation=True or "
                'padding="max_length"; pass one of them'
            )
        return None

    def _limit(self, max_length: int | None) -> int:
        limit = self.model_max_length if max_length is None else checked_length(max_length)
        if limit is None:
            raise InputError(
                "max_length: not given, and tokenizer_config.json names no model_max_length; "
                "pass max_length=config.max_position_embeddings"
            )
        return limit


def _strategy(truncation: object, pairs: object) -> str:
    strategy = strategy_of(truncation)
    if pairs is None and strategy == "only_first":
        return "longest_first"  # the same on one text, but it may leave nothing of it
    return strategy
