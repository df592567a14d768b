"""The tokenizer that a GGUF file carries, as `tokenizer.json`: kinds `gpt2` (byte-level BPE), `llama` (SentencePiece).

Knows nothing of chat templates or of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.pretokenizers import byte_level, find_pretokenizer
from model_registry.errors import CorruptModel, UnsupportedModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPACE = "▁"  # how SentencePiece writes a space
KEY = "tokenizer.ggml"


class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens by id with their types, and the ids with a role (None where the file names none)."""

    kind: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    bos: int | None
    eos: int | None
    unknown: int | None
    padding: int | None
    adds_bos: bool
    adds_eos: bool

    def of_type(self, *kinds: TokenType) -> list[int]:
        return [index for index, kind in enumerate(self.types) if kind in kinds]


def read_vocabulary(metadata: Metadata, num_rows: int) -> Vocabulary:
    """num_rows: of the embedding. Raises CorruptModel (none, or it does not fit), UnsupportedModel (another kind)."""
    kind = metadata.text(f"{KEY}.model")
    if kind is None:
        raise CorruptModel("The GGUF file has no tokenizer (tokenizer.ggml.model). Convert the model with its tokenizer.")
    if kind not in ("gpt2", "llama"):
        raise UnsupportedModel(f"Tokenizer kind {kind!r} is not supported; gpt2 and llama (SentencePiece) are.")
    tokens = tuple(metadata.texts(f"{KEY}.tokens"))
    if not tokens or len(tokens) > num_rows:
        raise CorruptModel(f"The GGUF file has {len(tokens)} tokens but {num_rows} embedding rows. Fetch it again.")
    if len(set(tokens)) != len(tokens):
        raise CorruptModel("The GGUF file lists a token twice: it is damaged, or was converted wrongly. Fetch it again.")
    types = metadata.numbers(f"{KEY}.token_type")
    if types is not None and len(types) != len(tokens):
        raise CorruptModel(f"The GGUF file has {len(tokens)} tokens but {len(types)} token types. Fetch it again.")
    bos = metadata.token_id(f"{KEY}.bos_token_id", len(tokens))
    eos = metadata.token_id(f"{KEY}.eos_token_id", len(tokens))
    usual = kind == "llama" or find_pretokenizer(metadata.text(f"{KEY}.pre")).adds_bos
    return Vocabulary(
        kind=kind,
        tokens=tokens,
        types=tuple(types.tolist()) if types is not None else (int(TokenType.NORMAL),) * len(tokens),
        bos=bos,
        eos=eos,
        unknown=metadata.token_id(f"{KEY}.unknown_token_id", len(tokens)),
        padding=metadata.token_id(f"{KEY}.padding_token_id", len(tokens)),
        adds_bos=bos is not None and metadata.flag(f"{KEY}.add_bos_token", usual),
        adds_eos=eos is not None and metadata.flag(f"{KEY}.add_eos_token", False),
    )


def build_tokenizer(metadata: Metadata, vocabulary: Vocabulary) -> Tokenizer:
    """Raises CorruptModel when the parts do not fit together."""
    import json

    from tokenizers import Tokenizer

    parts = _byte_level_parts(metadata, vocabulary) if vocabulary.kind == "gpt2" else _sentencepiece_parts(metadata, vocabulary)
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "post_processor": _post_processor(vocabulary),
        **parts,
    }
    try:
        return Tokenizer.from_str(json.dumps(description))
    except Exception as error:  # the library raises nothing narrower
        raise CorruptModel(f"The GGUF file's tokenizer does not fit together ({error}). Fetch it again.") from error


def _byte_level_parts(metadata: Metadata, vocabulary: Vocabulary) -> dict[str, Any]:
    pre = find_pretokenizer(metadata.text(f"{KEY}.pre"))
    merges = []
    for merge in metadata.texts(f"{KEY}.merges"):
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise CorruptModel(f"The GGUF file's merge {merge!r} is not two tokens. Fetch the file again.")
        merges.append([left, right])
    return {
        "normalizer": None if pre.normal_form is None else {"type": pre.normal_form},
        "pre_tokenizer": pre.to_json(),
        "decoder": byte_level(add_prefix_space=True),
        "model": _model(vocabulary, merges, ignore_merges=pre.ignore_merges),
    }


def _sentencepiece_parts(metadata: Metadata, vocabulary: Vocabulary) -> dict[str, Any]:
    prefixed = metadata.flag(f"{KEY}.add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    restore = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if prefixed else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefixed else []
    merges = _merges_of_pieces(vocabulary, _scores(metadata, len(vocabulary.tokens)))
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [restore, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _model(vocabulary, merges, byte_fallback=bool(vocabulary.of_type(TokenType.BYTE))),
    }


def _scores(metadata: Metadata, count: int) -> list[float]:
    scores = metadata.numbers(f"{KEY}.scores")
    if scores is None or len(scores) != count or not np.isfinite(scores.astype(np.float64)).all():
        raise CorruptModel(f"The GGUF file lacks a sound score for each of its {count} tokens. Fetch it again.")
    return [float(score) for score in scores.tolist()]


def _merges_of_pieces(vocabulary: Vocabulary, scores: list[float]) -> list[list[str]]:
    """SentencePiece joins neighbours whose joint piece scores best: every way to split a piece, best piece first."""
    ids = {token: index for index, token in enumerate(vocabulary.tokens)}
    normal = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)
    ranked: list[tuple[float, int, int, str, str]] = []
    for index in vocabulary.of_type(*normal):
        token = vocabulary.tokens[index]
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                ranked.append((-scores[index], ids[left], ids[right], left, right))
    ranked.sort()
    return [[left, right] for *_, left, right in ranked]


def _model(
    vocabulary: Vocabulary, merges: list[list[str]], *, ignore_merges: bool = False, byte_fallback: bool = False
) -> dict[str, Any]:
    is_pieces = vocabulary.kind == "llama"
    unknown = vocabulary.tokens[vocabulary.unknown] if is_pieces and vocabulary.unknown is not None else None
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": is_pieces,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": {token: index for index, token in enumerate(vocabulary.tokens)},
        "merges": merges,
    }


def _added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Tokens found in text before anything else. Control tokens are special: decoding may skip them."""
    return [
        {
            "id": index,
            "content": vocabulary.tokens[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": vocabulary.types[index] != TokenType.USER_DEFINED,
        }
        for index in vocabulary.of_type(TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
        if vocabulary.tokens[index]
    ]


def _post_processor(vocabulary: Vocabulary) -> dict[str, Any] | None:
    before = [vocabulary.bos] if vocabulary.adds_bos and vocabulary.bos is not None else []
    after = [vocabulary.eos] if vocabulary.adds_eos and vocabulary.eos is not None else []
    if not before and not after:
        return None

    def special(index: int, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": vocabulary.tokens[index], "type_id": kind}}

    def template(*letters: tuple[str, int]) -> list[dict[str, Any]]:
        pieces: list[dict[str, Any]] = []
        for letter, kind in letters:
            pieces += [special(index, kind) for index in before]
            pieces.append({"Sequence": {"id": letter, "type_id": kind}})
            pieces += [special(index, kind) for index in after]
        return pieces

    used = {vocabulary.tokens[index]: index for index in [*before, *after]}
    return {
        "type": "TemplateProcessing",
        "single": template(("A", 0)),
        "pair": template(("A", 0), ("B", 1)),
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in used.items()},
    }
