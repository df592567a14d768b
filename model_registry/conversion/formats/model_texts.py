"""Whether a chat template can be compiled, for a warning at import. Reads its syntax; runs and folds nothing of it.

The environment is that of `apply_chat_template`: Jinja with loop controls. Rendering is the runtime's.

The files beside a model's weights: their types, and what is wrong with them. Owns what is read of them at import.

A value that cannot be is a CorruptModel by file and field; what only limits the model (a chat template that does not compile) is a
warning, which the version keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from msgspec import Meta, Struct

from model_registry.errors import CorruptModel
from model_registry.text_files import MAX_TOKENIZER_BYTES, checked, read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer


MAX_CHARS = 1 << 20


def template_fault(source: str) -> str | None:
    """What is wrong with it, None when it compiles."""
    if len(source) > MAX_CHARS:
        return f"it has more than {MAX_CHARS} characters"
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701 - nothing is rendered
    try:
        template = environment.parse(source)
    except TemplateSyntaxError as error:
        return f"{(error.message or '').rstrip('.')} (line {error.lineno})"
    except RecursionError:
        return "it is nested too deeply"
    unknown = [node.name for node in template.find_all(nodes.Filter) if node.name not in environment.filters]
    unknown += [node.name for node in template.find_all(nodes.Test) if node.name not in environment.tests]
    return f"it uses {unknown[0]!r}, which there is not" if unknown else None


TokenId = Annotated[int, Meta(ge=0, le=1 << 31)]
Size = Annotated[int, Meta(ge=1, le=1 << 31)]
_Part = Annotated[float, Meta(ge=0, le=1)]


class Generation(Struct, frozen=True):
    """What is read of generation_config.json, and of genai_config.json's `search`."""

    eos_token_id: TokenId | list[TokenId] | None = None
    pad_token_id: int | None = None
    do_sample: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1 << 31)] | None = None
    top_p: _Part | None = None
    min_p: _Part | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None


class _Decoder(Struct, frozen=True):
    filename: str | None = None
    num_hidden_layers: Size | None = None
    num_key_value_heads: Size | None = None
    head_size: Size | None = None
    inputs: dict[str, str] | None = None
    outputs: dict[str, str] | None = None
    session_options: dict[str, Any] | None = None


class _Model(Struct, frozen=True):
    decoder: _Decoder = _Decoder()
    type: Annotated[str, Meta(pattern=r"^[\w.-]{1,64}$")] = "unknown"
    context_length: Size | None = None
    vocab_size: Size | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    bos_token_id: int | None = None
    pad_token_id: int | None = None


class GenaiConfig(Struct, frozen=True):
    """What is read of genai_config.json."""

    model: _Model = _Model()
    search: Generation = Generation()


class _Token(Struct, frozen=True):
    content: str


class _NamedTemplate(Struct, frozen=True):
    name: str
    template: str


class _TokenizerConfig(Struct, frozen=True):
    bos_token: str | _Token | None = None
    eos_token: str | _Token | None = None
    unk_token: str | _Token | None = None
    pad_token: str | _Token | None = None
    chat_template: str | list[_NamedTemplate] | None = None


def read_generation(folder: Path) -> Generation:
    """The contents of a folder's generation_config.json; empty without one. Raises CorruptModel."""
    path = folder / "generation_config.json"
    return checked(read_object(path), Generation, path.name) if path.is_file() else Generation()


def ids_of(ids: int | Sequence[int] | None) -> list[int]:
    """One id, several or none, as a list."""
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def load_tokenizer(path: Path) -> Tokenizer:
    """Raises CorruptModel."""
    from tokenizers import Tokenizer

    if (size := path.stat().st_size) > MAX_TOKENIZER_BYTES:
        raise CorruptModel(f"{path.name} has {size / 1e6:.0f} MB, more than any tokenizer needs. Fetch it again.")
    try:
        with panics_are_damage(path.name):
            return Tokenizer.from_file(str(path))
    except CorruptModel:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise CorruptModel(f"{path.name} cannot be read ({str(error)[:300]}). Fetch it again.") from error


@contextmanager
def panics_are_damage(file: str) -> Iterator[None]:
    """A panic of the tokenizers' Rust code, which is no Exception, becomes CorruptModel."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptModel(f"{file} cannot be used ({str(error)[:300]}). Choose another build of the model.") from error


def check_texts(folder: Path) -> tuple[str, ...]:
    """Checks the texts of an imported folder. Returns warnings, in whole sentences. Raises CorruptModel."""
    genai, tokenizer_config = folder / "genai_config.json", folder / "tokenizer_config.json"
    model = checked(read_object(genai), GenaiConfig, genai.name).model if genai.is_file() else _Model()
    config = _TokenizerConfig()
    if tokenizer_config.is_file():
        config = checked(read_object(tokenizer_config), _TokenizerConfig, tokenizer_config.name)
    generation = read_generation(folder)
    ends = {genai.name: ids_of(model.eos_token_id), "generation_config.json": ids_of(generation.eos_token_id)}
    for file, ids in ends.items():
        if model.vocab_size is not None and any(each >= model.vocab_size for each in ids):
            raise CorruptModel(f"{file}: eos_token_id is {max(ids)}, but the model has {model.vocab_size} tokens. Fetch it again.")
    return (*_template_warnings(folder, config), *_token_warnings(folder, model))


def can_chat(folder: Path) -> bool:
    """Whether an imported folder has a chat template that compiles. Raises CorruptModel."""
    path = folder / "tokenizer_config.json"
    config = checked(read_object(path), _TokenizerConfig, path.name) if path.is_file() else _TokenizerConfig()
    return any(template_fault(source) is None for _, source in _templates(folder, config))


def _template_warnings(folder: Path, config: _TokenizerConfig) -> Iterator[str]:
    for name, source in _templates(folder, config):
        if fault := template_fault(source):
            yield (
                f"The chat template in {name} does not compile: {fault}. Completions work; chat needs another template, or another "
                "build of the model."
            )


def _templates(folder: Path, config: _TokenizerConfig) -> Iterator[tuple[str, str]]:
    """The one that is used: a file of its own comes before the tokenizer's configuration."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        try:
            yield own.name, own.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CorruptModel(f"{own.name} is not UTF-8 text ({error}). Fetch it again.") from error
    elif isinstance(config.chat_template, str):
        yield "tokenizer_config.json", config.chat_template
    else:
        named = {each.name: each.template for each in config.chat_template or ()}
        if "default" in named:
            yield "tokenizer_config.json", named["default"]


def _token_warnings(folder: Path, model: _Model) -> Iterator[str]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    num_tokens = load_tokenizer(path).get_vocab_size(with_added_tokens=True)
    if model.vocab_size is not None and num_tokens > model.vocab_size:
        yield (
            f"The tokenizer has {num_tokens} tokens, and the model {model.vocab_size}: texts with the tokens between cannot be "
            "processed. The tokenizer may be another model's."
        )
