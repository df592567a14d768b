"""The rebuilt tokenizer: any text survives a round trip, cuts are those of the original, and contradictions are reported."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from model_registry.conversion.formats.gguf.metadata import Metadata
from model_registry.conversion.formats.gguf.pretokenizers import PRETOKENIZERS, find_pretokenizer
from model_registry.conversion.formats.gguf.tokenizer import build_tokenizer, read_vocabulary
from model_registry.errors import CorruptModel, RegistryError, UnsupportedModel
from tests.doubles.tiny_gguf import MERGES, SPECIALS, byte_level_vocabulary, sentencepiece_vocabulary

TEXTS = [
    "The cat sat on the mat.",
    "  leading, double  spaces and trailing  ",
    "1234567890 3.14 ½ Ⅷ",
    "emoji 😀👩‍👩‍👧 flags 🇫🇷",
    "日本語と한국어 и русский, العربية",
    "line\n\n\tindented\r\nend\n",
    "don't WE'LL I'm camelCase HTTPServer",
    "\u0000 control, zero-width\u200b, combining e\u0301",
    "",
]
NFC_PRE = {"qwen2", "qwen35"}


def numbers(values: list[Any]) -> Any:
    import numpy as np

    return np.array(values)


def byte_level(**changes: Any) -> Metadata:
    tokens, types = byte_level_vocabulary()
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": numbers(types),
        "tokenizer.ggml.merges": list(MERGES),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
    }
    return _changed(values, changes)


def sentencepiece(**changes: Any) -> Metadata:
    tokens, types, scores = sentencepiece_vocabulary()
    values = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": numbers(types),
        "tokenizer.ggml.scores": numbers(scores),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return _changed(values, changes)


def _changed(values: dict[str, Any], changes: dict[str, Any]) -> Metadata:
    values |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return Metadata({key: value for key, value in values.items() if value is not None})


def build(metadata: Metadata, num_rows: int = 400) -> Tokenizer:
    return build_tokenizer(metadata, read_vocabulary(metadata, num_rows))


@pytest.mark.parametrize("pre", sorted(PRETOKENIZERS))
def test_byte_level_round_trip(pre: str) -> None:
    tokenizer = build(byte_level(pre=pre, add_bos_token=False))
    for text in TEXTS:
        if pre in NFC_PRE and "\u0301" in text:
            continue
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("smollm", "a 12 it's  x", ["a", " ", "1", "2", " it", "'s", " ", " x"]),
        ("gpt-2", "a 12 it's  x", ["a", " 12", " it", "'s", " ", " x"]),
        ("llama-bpe", "a 12345 IT'S\n\nx", ["a", " ", "123", "45", " IT", "'S", "\n\n", "x"]),
        ("qwen2", "a 12(b)\n", ["a", " ", "1", "2", "(b", ")\n"]),
        ("deepseek-r1-qwen", "a 12(b)\n", ["a", " ", "1", "2", "(b", ")\n"]),
        ("tekken", "camelCase HTTPServer 12/\n", ["camel", "Case", " HTTPServer", " ", "1", "2", "/\n"]),
        ("gpt-4o", "don't 1234", ["don't", " ", "123", "4"]),
        ("deepseek-llm", "ab 12, 日本\n", ["ab", " ", "12", ",", " ", "日本", "\n"]),
        ("deepseek-v3", "a 1234 日本 .net", ["a", " ", "123", "4", " ", "日本", " .", "net"]),
        ("default", "a+b 1234", ["a", "+", "b", " ", "123", "4"]),
    ],
)
def test_cuts_before_merging(pre: str, text: str, pieces: list[str]) -> None:
    tokenizer = build(byte_level(pre=pre))
    assert tokenizer.pre_tokenizer is not None
    spans = [span for _, span in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert [text[start:stop] for start, stop in spans] == pieces


def test_merges_and_special_tokens() -> None:
    tokenizer = build(byte_level())
    ids = tokenizer.encode("<|im_start|>in the<|im_end|>").ids
    assert [tokenizer.id_to_token(index) for index in ids] == ["<|im_start|>", "in", "Ġthe", "<|im_end|>"]
    assert tokenizer.decode(ids) == "in the"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>in the<|im_end|>"


def test_user_defined_tokens_are_found_but_not_special() -> None:
    tokens, types = byte_level_vocabulary()
    metadata = byte_level(tokens=[*tokens, "<tool>"], token_type=numbers([*types, 4]))
    tokenizer = build(metadata)
    ids = tokenizer.encode("a<tool>b").ids
    assert len(tokens) in ids
    assert tokenizer.decode(ids) == "a<tool>b"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, None),
        ({"add_bos_token": True}, "<|endoftext|>"),
        ({"pre": "llama-bpe"}, "<|endoftext|>"),
        ({"pre": "llama-bpe", "add_bos_token": False}, None),
        ({"pre": "llama-bpe", "bos_token_id": None}, None),
    ],
)
def test_beginning_of_sequence(changes: dict[str, Any], first: str | None) -> None:
    tokens = build(byte_level(**changes)).encode("q").tokens
    assert tokens == ([first] if first else []) + ["q"]


def test_end_of_sequence_and_pairs() -> None:
    tokenizer = build(byte_level(add_bos_token=True, add_eos_token=True))
    bos, eos = SPECIALS[0], SPECIALS[2]
    assert tokenizer.encode("q").tokens == [bos, "q", eos]
    assert tokenizer.encode("q", "r").tokens == [bos, "q", eos, bos, "r", eos]


def test_a_whole_piece_is_kept_where_merges_are_ignored() -> None:
    tokens, types = byte_level_vocabulary()
    changes = {"tokens": [*tokens, "xyz"], "token_type": numbers([*types, 1]), "add_bos_token": False}
    assert build(byte_level(pre="llama-bpe", **changes)).encode("xyz").tokens == ["xyz"]
    assert build(byte_level(pre="qwen2", **changes)).encode("xyz").tokens == ["x", "y", "z"]


SENTENCEPIECE = build(sentencepiece())


def test_sentencepiece_merges_by_score_with_byte_fallback() -> None:
    tokenizer = build(sentencepiece())
    assert tokenizer.encode("the cat").tokens == ["<s>", "▁the", "▁cat"]
    assert tokenizer.encode("é", add_special_tokens=False).tokens == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.encode("</s>a", add_special_tokens=False).ids[0] == 2


@pytest.mark.parametrize("prefixed", [True, False])
def test_sentencepiece_round_trip(prefixed: bool) -> None:
    tokenizer = build(sentencepiece(add_space_prefix=prefixed))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_sentencepiece_prefers_the_better_piece() -> None:
    """Without `▁the`, `he` is joined before `▁t` because it scores better, so `▁th` never comes to be."""
    tokens, types, scores = sentencepiece_vocabulary()
    cut = tokens.index("▁the")
    metadata = sentencepiece(
        tokens=tokens[:cut] + tokens[cut + 1 :],
        token_type=numbers(types[:cut] + types[cut + 1 :]),
        scores=numbers(scores[:cut] + scores[cut + 1 :]),
    )
    assert build(metadata).encode("the", add_special_tokens=False).tokens == ["▁t", "he"]


def test_runs_of_spaces_and_lines_are_tokens_of_their_own() -> None:
    """As in gemma3: user-defined pieces hold plain spaces, the longest wins, and no space is put before a text."""
    tokens, types, scores = sentencepiece_vocabulary()
    runs = ["\n", "\n\n", "  ", "   ", "<start_of_turn>"]
    metadata = sentencepiece(
        tokens=[*tokens, *runs],
        token_type=numbers([*types, 4, 4, 4, 4, 3]),
        scores=numbers([*scores, *[-1000.0] * len(runs)]),
        add_space_prefix=False,
    )
    tokenizer = build(metadata)
    text = "<start_of_turn>the cat\n\n\n     he\n"
    encoded = tokenizer.encode(text)
    assert encoded.tokens == ["<s>", "<start_of_turn>", "t", "he", "▁cat", "\n\n", "\n", "   ", "  ", "he", "\n"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == f"<s>{text}"


def joined_by_score(text: str) -> list[str]:
    """SentencePiece's algorithm, naively: join the neighbours of best joint score, the leftmost first, until none is left."""
    tokens, types, scores = sentencepiece_vocabulary()
    score_of = {token: score for token, kind, score in zip(tokens, types, scores, strict=True) if kind == 1}
    symbols = list("▁" + text.replace(" ", "▁"))
    while True:
        pairs = [(left + right, at) for at, (left, right) in enumerate(itertools.pairwise(symbols))]
        known = [(-score_of[piece], at) for piece, at in pairs if piece in score_of]
        if not known:
            break
        _, at = min(known)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    spelled = ([piece] if piece in score_of else [f"<0x{byte:02X}>" for byte in piece.encode()] for piece in symbols)
    return list(itertools.chain.from_iterable(spelled))


@given(text=st.text(alphabet="thecatin é", max_size=24))
def test_sentencepiece_equals_the_naive_algorithm(text: str) -> None:
    tokens = SENTENCEPIECE.encode(text, add_special_tokens=False).tokens
    assert tokens == (joined_by_score(text) if text else [])


@pytest.mark.parametrize(
    ("metadata", "kind", "message"),
    [
        (Metadata({}), CorruptModel, "no tokenizer"),
        (byte_level(model="t5"), UnsupportedModel, "'t5' is not supported"),
        (byte_level(pre="klingon"), UnsupportedModel, "'klingon' .*smollm"),
        (byte_level(tokens=None), CorruptModel, r"no tokenizer\.ggml\.tokens"),
        (byte_level(tokens=numbers([1, 2])), CorruptModel, "not a list of texts"),
        (byte_level(tokens=["a", "a"], token_type=None, bos_token_id=0, eos_token_id=1), CorruptModel, "token twice"),
        (byte_level(tokens=[f"t{index}" for index in range(401)]), CorruptModel, "401 tokens but 400 embedding rows"),
        (byte_level(token_type=numbers([1, 1])), CorruptModel, "2 token types"),
        (byte_level(bos_token_id=9999), CorruptModel, "bos_token_id is 9999"),
        (byte_level(merges=None), CorruptModel, "no tokenizer.ggml.merges"),
        (byte_level(merges=["th"]), CorruptModel, "not two tokens"),
        (byte_level(merges=["q unknowntoken"]), CorruptModel, "does not fit together"),
        (sentencepiece(scores=None), CorruptModel, "sound score"),
        (sentencepiece(scores=numbers([1.0])), CorruptModel, "sound score"),
    ],
)
def test_misfits_are_reported(metadata: Metadata, kind: type[RegistryError], message: str) -> None:
    with pytest.raises(kind, match=message):
        build(metadata)


def test_a_file_that_names_no_pretokenizer_gets_the_default() -> None:
    assert find_pretokenizer(None) == find_pretokenizer("default")
