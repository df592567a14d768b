"""Real, tiny tokenizers of each kind: text to tokens and, token by token, back to the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from runtime.text.stream import TextStream
from runtime.text.tokenizer import ModelTokenizer, byte_level_alphabet

SAMPLE = ["the cat sat on the mat, the cat sat", "over the hat and the 猫"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(SAMPLE, trainer)
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def sentencepiece() -> Tokenizer:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in ["\u2581", "t", "h", "e", "th", "the", "\u2581the", "c", "a", "ca", "cat", "猫"]:
        vocabulary[piece] = len(vocabulary)
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("c", "a"), ("ca", "t")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<s>", "</s>")])
    return tokenizer


def saved(tokenizer: Tokenizer, folder: Path) -> ModelTokenizer:
    tokenizer.save(str(folder / "tokenizer.json"))
    return ModelTokenizer(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def bytes_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    folder = tmp_path_factory.mktemp("byte-level")
    return saved(byte_level(), folder)


@pytest.fixture(scope="module")
def pieces_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    folder = tmp_path_factory.mktemp("sentencepiece")
    return saved(sentencepiece(), folder)


def streamed(tokenizer: ModelTokenizer, ids: list[int], *, skip_special_tokens: bool = True) -> str:
    stream = TextStream(tokenizer.token_bytes(skip_special_tokens=skip_special_tokens))
    return "".join(map(stream.feed, ids)) + stream.flush()


texts = st.text(st.sampled_from("the cat猫é🙂\n\0\x7f "), max_size=20)


@given(texts)
def test_byte_level_text_comes_back_token_by_token(bytes_tokenizer: ModelTokenizer, text: str) -> None:
    assert streamed(bytes_tokenizer, bytes_tokenizer.encode(text, add_special_tokens=False)) == text


@given(texts.filter(lambda text: "\u2581" not in text))
def test_sentencepiece_text_comes_back_token_by_token(pieces_tokenizer: ModelTokenizer, text: str) -> None:
    ids = pieces_tokenizer.encode(text, add_special_tokens=False)
    assert streamed(pieces_tokenizer, ids) == (f" {text}" if text else "")


def test_the_byte_alphabet_is_the_librarys() -> None:
    table = byte_level_alphabet()
    assert set(table) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(table.values()) == list(range(256))


def test_special_tokens_are_silent_unless_requested(bytes_tokenizer: ModelTokenizer) -> None:
    ids = bytes_tokenizer.encode("the<|end|><think>cat", add_special_tokens=False)
    assert streamed(bytes_tokenizer, ids) == "the<think>cat"
    assert streamed(bytes_tokenizer, ids, skip_special_tokens=False) == "the<|end|><think>cat"
    assert bytes_tokenizer.decode(ids) == "the<|end|><think>cat"


def test_byte_fallback_tokens_join_into_characters(pieces_tokenizer: ModelTokenizer) -> None:
    assert streamed(pieces_tokenizer, [3 + byte for byte in "€".encode()]) == "€"
    assert streamed(pieces_tokenizer, [1, 3 + ord("x"), 2]) == "x"


def test_a_token_beyond_the_vocabulary_says_nothing(bytes_tokenizer: ModelTokenizer) -> None:
    assert streamed(bytes_tokenizer, [bytes_tokenizer.vocab_size + 5]) == ""


def test_the_vocabulary_counts_added_tokens(bytes_tokenizer: ModelTokenizer) -> None:
    assert max(bytes_tokenizer.encode("<|end|><think>", add_special_tokens=False)) == bytes_tokenizer.vocab_size - 1


def test_truncation_and_padding_of_the_file_do_not_count(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(max_length=3)
    tokenizer.enable_padding(length=50)
    text = "the cat sat on the mat, the cat sat"
    loaded = saved(tokenizer, tmp_path)
    assert streamed(loaded, loaded.encode(text, add_special_tokens=False)) == text


def test_a_tokenizer_of_another_kind_reads_by_its_own_decoder(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"cat": 0, "<unk>": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert streamed(saved(tokenizer, tmp_path), [0]) == "cat"


@pytest.mark.parametrize("content", ["", "{", "{}", '{"version": "1.0", "model": {"type": "Unheard"}}'])
def test_a_garbled_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"cannot read tokenizer\.json"):
        ModelTokenizer(tmp_path / "tokenizer.json")


def test_a_decoder_is_known_by_its_type_and_not_by_words_in_its_patterns(tmp_path: Path) -> None:
    tokenizer = sentencepiece()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("ByteLevel", " "), decoders.ByteFallback(), decoders.Fuse()])
    read = saved(tokenizer, tmp_path).token_bytes(skip_special_tokens=False)
    assert read(3 + 0xE7) == b"\xe7"
    assert read(tokenizer.token_to_id("\u2581the")) == b" the"
