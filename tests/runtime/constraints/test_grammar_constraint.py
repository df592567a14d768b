"""A row's place in its grammar, with tokens of several bytes and special ones among them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from runtime.batching.failures import broken
from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.protocol.errors import FailureKind
from runtime.protocol.request import Grammar, GrammarKind
from runtime.text.constraints.compiler import GrammarCompiler
from runtime.text.constraints.constraint import ConstraintBroken, GrammarTooComplex
from runtime.text.constraints.lark import token
from runtime.text.tokenizer import ModelTokenizer
from tests.doubles.small_tokenizer import EOS_IDS, SPECIAL, small_tokenizer
from tests.runtime.constraints.grammar_walks import allowed_tokens, schema_grammar

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "city": {"enum": ["London", "Paris"]}, "born": {"type": "integer"}},
    "required": ["name", "city", "born"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return small_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def compiler(tokenizer: ModelTokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, EOS_IDS, tokenizer.vocab_size)


def ours(source: str) -> Grammar:
    return Grammar(kind=GrammarKind.CALLS, source=source)


def test_a_text_in_the_tokenizers_own_tokens_is_allowed_to_its_end(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    constraint = compiler.compile(schema_grammar(SCHEMA))()
    answer = json.dumps({"name": "Ada Lovelace é", "city": "London", "born": 1815}, ensure_ascii=False)
    for each in tokenizer.encode(answer, add_special_tokens=False):
        assert not constraint.is_complete
        assert each in allowed_tokens(constraint, tokenizer.vocab_size)
        constraint.accept(each)
    assert constraint.is_complete


def test_forced_tokens_are_those_of_the_tokenizer(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    """Other tokens of the same text would put the model off; whatever of it could be joined with what follows is left."""
    constraint = compiler.compile(schema_grammar(SCHEMA))()
    forced = constraint.forced()
    assert len(forced) > 1
    assert forced == tokenizer.encode('{"name": "Ada', add_special_tokens=False)[: len(forced)]
    for each in forced:
        constraint.accept(each)
    assert constraint.forced() == []
    assert len(allowed_tokens(constraint, tokenizer.vocab_size)) >= 1


def test_forced_text_that_is_spelled_like_a_special_token_stays_text(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    constraint = compiler.compile(ours('start: "London <|im_end|> Paris"'))()
    expected_text: list[int] = []
    while not constraint.is_complete:
        expected_text += constraint.forced() or allowed_tokens(constraint, tokenizer.vocab_size)[:1]
        for each in constraint.forced() or expected_text[-1:]:
            constraint.accept(each)
    assert tokenizer.decode(expected_text) == "London <|im_end|> Paris"
    assert not set(expected_text) & set(range(len(SPECIAL)))


def test_what_is_forced_is_all_that_is_allowed(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    """Whether forced tokens are taken at once or sampled, the answer is the same."""
    constraint = compiler.compile(schema_grammar(SCHEMA))()
    for each in constraint.forced():
        assert allowed_tokens(constraint, tokenizer.vocab_size) == [each]
        constraint.accept(each)


@pytest.mark.parametrize(
    "grammar",
    [
        schema_grammar({"type": "string"}),
        schema_grammar(True),
        Grammar(kind=GrammarKind.REGEX, source="(?s:.*)"),
        Grammar(kind=GrammarKind.REGEX, source="[^a]+"),
        Grammar(kind=GrammarKind.CHOICE, source=json.dumps(SPECIAL)),
        Grammar(kind=GrammarKind.LARK, source=r"start: /(.|\n)*/"),
        Grammar(kind=GrammarKind.LARK, source='start: ANY\nANY: ~"a"'),
        Grammar(kind=GrammarKind.LARK, source="start: " + " | ".join(map(json.dumps, SPECIAL))),
    ],
    ids=lambda grammar: f"{grammar.kind}:{grammar.source[:20]}",
)
def test_no_special_token_but_the_ends_passes(grammar: Grammar, tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    for seed in range(3):
        random, constraint = Random(seed), compiler.compile(grammar)()
        for _ in range(40):
            tokens = allowed_tokens(constraint, tokenizer.vocab_size)
            assert not {SPECIAL.index("<|im_start|>"), SPECIAL.index("[TOOL_CALLS]")} & set(tokens)
            going_on = sorted(set(tokens) - EOS_IDS)
            if not going_on:
                break
            constraint.accept(random.choice(going_on))
            if constraint.is_complete:
                break


def test_the_ends_are_allowed_where_the_answer_may_end(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    constraint = compiler.compile(Grammar(kind=GrammarKind.REGEX, source="a{2,3}"))()
    letter = tokenizer.encode("a", add_special_tokens=False)[0]
    ends = []
    for _ in range(3):
        ends.append(EOS_IDS & set(allowed_tokens(constraint, tokenizer.vocab_size)))
        constraint.accept(letter)
    assert ends == [set(), set(), EOS_IDS]
    assert constraint.is_complete


def test_a_token_that_is_not_allowed_breaks_the_constraint_without_quoting(
    tokenizer: ModelTokenizer, compiler: GrammarCompiler
) -> None:
    constraint = compiler.compile(ours('start: "London"'))()
    with pytest.raises(ConstraintBroken) as broken:
        constraint.accept(tokenizer.encode("Paris", add_special_tokens=False)[0])
    assert "Paris" not in str(broken.value)
    with pytest.raises(ConstraintBroken):
        constraint.allowed()


def test_rows_of_one_grammar_are_apart(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    make = compiler.compile(ours('start: "a" "b" | "c" "d"'))
    first, second = make(), make()
    first.accept(tokenizer.encode("a", add_special_tokens=False)[0])
    assert tokenizer.decode(first.forced()) == "b"
    assert second.forced() == []
    assert len(allowed_tokens(second, tokenizer.vocab_size)) == 2


def test_logits_beyond_the_tokenizer_are_never_allowed(tokenizer: ModelTokenizer) -> None:
    """Vocabularies are padded, so that a graph has more logits than its tokenizer has tokens; or it has fewer."""
    for vocab_size in (tokenizer.vocab_size + 100, tokenizer.vocab_size - 9):
        constraint = GrammarCompiler(tokenizer, EOS_IDS, vocab_size).compile(ours(r"start: /(.|\n)*/"))()
        tokens = allowed_tokens(constraint, vocab_size)
        assert max(tokens) < min(tokenizer.vocab_size, vocab_size)


def test_a_special_token_is_meant_where_the_model_has_it(tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    number = SPECIAL.index("[TOOL_CALLS]")
    constraint = compiler.compile(ours(f'start: {token("[TOOL_CALLS]")} {token("<nothing>")} "x"'))()
    assert allowed_tokens(constraint, tokenizer.vocab_size) == [number]
    constraint.accept(number)
    rest = constraint.forced()
    assert tokenizer.decode(rest) == "<nothing>x"


@pytest.mark.parametrize("mark", ["[TOOL_CALLS]", "<tool_call>", "CALL:"])
def test_text_up_to_a_mark_of_either_kind(mark: str, tokenizer: ModelTokenizer, compiler: GrammarCompiler) -> None:
    """A special token, an added one that is written in angle brackets, and mere text."""
    source = f'start: (begin "x")* TEXT\nbegin[lazy]: TEXT {token(mark)}\nTEXT: /(.|\\n)*/'
    constraint = compiler.compile(ours(source))()
    for each in tokenizer.encode(f"the city {mark}", add_special_tokens=False):
        assert each in allowed_tokens(constraint, tokenizer.vocab_size)
        constraint.accept(each)
    assert tokenizer.decode(constraint.forced()) in ("x", "")
    assert {tokenizer.decode([each])[0] for each in allowed_tokens(constraint, tokenizer.vocab_size)} == {"x"}


def test_a_tokenizer_that_the_library_cannot_read_is_read_token_by_token(tmp_path: Path) -> None:
    """Here: characters and their pairs, neither byte-level nor with byte fallback."""
    inner = Tokenizer(BPE(vocab={"<eos>": 0, "a": 1, "b": 2, "ab": 3, " ": 4}, merges=[("a", "b")]))
    inner.add_special_tokens(["<eos>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    plain = ModelTokenizer(tmp_path / "tokenizer.json")
    constraint = GrammarCompiler(plain, {0}, 5).compile(ours('start: "ab a" | "b"'))()
    assert allowed_tokens(constraint, 5) == [1, 2, 3]
    constraint.accept(3)
    assert constraint.forced() == [4, 1]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("option", ["", '%llguidance {"no_forcing": false}\n'])
def test_a_clients_grammar_whose_forced_text_never_ends_does_not_hang(compiler: GrammarCompiler, option: str) -> None:
    """The library looks for forced text without end in it, and holds the interpreter meanwhile."""
    constraint = compiler.compile(Grammar(kind=GrammarKind.LARK, source=f"{option}start: /a+/ /a+/"))()
    assert constraint.forced() == []
    assert constraint.allowed() is not None


def test_a_grammar_that_outgrows_a_limit_is_named_by_its_field() -> None:
    source = r"(\w{1,1000}){1,1000}"
    form = Grammar(kind=GrammarKind.REGEX, source=source)
    constraint = GrammarCompiler(ByteTokenizer(), {EOS}, VOCAB_SIZE).compile(form)()

    def follow() -> None:
        for number in range(1000):
            constraint.allowed()
            constraint.accept(ord("ab1_"[number % 4]))

    with pytest.raises(GrammarTooComplex) as caught:
        follow()
    failed = broken(7, caught.value)
    assert (failed.kind, failed.field, failed.code) == (FailureKind.INVALID_REQUEST, form.field, "grammar_too_complex")
    assert "simpler" in failed.message
