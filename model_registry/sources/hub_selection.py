"""Which files of a hub repository make one model. Pure: names in, names out; fetches nothing.

What a repository may be: an onnxruntime-genai folder (with `genai_config.json`), somewhere within; a browser export
(`onnx/model_q4.onnx` beside `config.json` and `tokenizer.json`); GGUF files; or a checkpoint (`config.json` beside safetensors,
or beside pickles, which are fetched only when they are allowed).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from model_registry.errors import SourceUnavailable, UnsupportedModel
from model_registry.references import HubReference
from model_registry.sources.protocol import ANY_FILES, FileChoice

CONFIG_FILES = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "genai_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
)
_VOCABULARY_FILES = frozenset({"tokenizer.model", "vocab.json", "vocab.txt", "merges.txt", "spiece.model"})
BROWSER_MODELS = ("model_q4.onnx", "model.onnx")  # in order of preference: dynamic int8 loses too much quality


@dataclass(frozen=True, slots=True)
class HubFile:
    """path: within the repository. sha256: known for large files only."""

    path: str
    size_bytes: int
    sha256: str | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def folder(self) -> str:
        parent = str(PurePosixPath(self.path).parent)
        return "" if parent == "." else parent


@dataclass(frozen=True, slots=True)
class Selection:
    """root: what to import, within the repository: a folder ('' is the repository itself) or a file."""

    root: str
    files: tuple[HubFile, ...]


def select_files(files: Sequence[HubFile], wanted: HubReference, choice: FileChoice = ANY_FILES) -> Selection:
    """The files of the model that `wanted` names; a checkpoint only by `choice`, or where there is nothing else.

    Raises SourceUnavailable (no such path), UnsupportedModel (no model for us here, or it must be named).
    """
    by_path = {file.path: file for file in files}
    if wanted.path in by_path:
        return _one_file(files, by_path[wanted.path], wanted)
    prefix = f"{wanted.path}/" if wanted.path else ""
    inside = [file for file in files if file.path.startswith(prefix)]
    if not inside:
        folders = sorted({file.folder for file in files if file.name in ("genai_config.json", "model.onnx")})
        hint = f" Models are in: {', '.join(folders)}." if folders else ""
        raise SourceUnavailable(f"{wanted.repo} has nothing at {wanted.path!r}.{hint}")
    if choice.wants_checkpoint and (found := _checkpoint(inside, wanted, allow_pickle=choice.allow_pickle)):
        return found
    genai = sorted(file.folder for file in inside if file.name == "genai_config.json")
    if genai:
        folder = _choose_genai(genai, wanted)
        return Selection(folder, tuple(file for file in files if file.folder == folder and _is_needed(file)))
    models = {file.name: file for file in inside if file.name.endswith(".onnx")}
    for name in BROWSER_MODELS:
        if name in models:
            return _browser_export(files, models[name])
    if not any(file.name.endswith(".gguf") for file in inside) and (
        found := _checkpoint(inside, wanted, allow_pickle=choice.allow_pickle)
    ):
        return found
    return _one_file(files, _choose_gguf(inside, wanted), wanted)


def _checkpoint(inside: Sequence[HubFile], wanted: HubReference, *, allow_pickle: bool) -> Selection | None:
    """The weights in the folder that was named, and the configuration beside them; never code."""
    here = [file for file in inside if file.folder == wanted.path]
    weights = [file for file in here if file.name.endswith(".safetensors") and not file.name.startswith("consolidated")]
    index = "model.safetensors.index.json"
    if not weights and any(file.name == "config.json" for file in here):
        weights = [file for file in here if re.fullmatch(r"pytorch_model.*\.bin", file.name)]
        index = "pytorch_model.bin.index.json"
        if weights and not allow_pickle:
            raise UnsupportedModel(
                f"{wanted.repo} has its weights as pickles only, which can run code when they are read. Choose a repository with "
                "safetensors, or run a job `convert` with `allow_pickle`: true, which reads nothing but tensors from them."
            )
    if not weights or not any(file.name == "config.json" for file in here):
        return None
    texts = [file for file in here if file.name in CONFIG_FILES | _VOCABULARY_FILES or file.name == index]
    return Selection(wanted.path, (*weights, *texts))


def _choose_genai(folders: Sequence[str], wanted: HubReference) -> str:
    cpu = [folder for folder in folders if "cpu" in folder.lower()]
    candidates = cpu or folders
    if len(candidates) > 1:
        raise UnsupportedModel(
            f"{wanted.repo} holds several models; name one of the folders: "
            f"{', '.join(f'hf://{wanted.repo}/{folder}' for folder in candidates)}."
        )
    return candidates[0]


def _choose_gguf(inside: Sequence[HubFile], wanted: HubReference) -> HubFile:
    found = [file for file in inside if file.name.endswith(".gguf")]
    if not found:
        raise UnsupportedModel(
            f"{wanted.repo} holds neither an ONNX model, a GGUF file nor a checkpoint that slmops could import. "
            "Look for a repository of the same model with ONNX or GGUF in its name."
        )
    if len(found) > 1:
        names = ", ".join(f"hf://{wanted.repo}/{file.path}" for file in found[:8])
        raise UnsupportedModel(f"{wanted.repo} holds several GGUF files; name one: {names}.")
    return found[0]


def _one_file(files: Sequence[HubFile], file: HubFile, wanted: HubReference) -> Selection:
    if file.name.endswith(".onnx"):
        return _browser_export(files, file)
    if re.search(r"-\d{5}-of-\d{5}\.gguf$", file.name):
        raise UnsupportedModel(f"{file.path} in {wanted.repo} is one part of a split GGUF. Choose a build in one file.")
    return Selection(file.path, (file,))


def _browser_export(files: Sequence[HubFile], model: HubFile) -> Selection:
    """The graph, the data files named after it, and the configuration beside it or one folder up."""
    root = str(PurePosixPath(model.folder).parent) if PurePosixPath(model.folder).name == "onnx" else model.folder
    root = "" if root == "." else root
    named = re.compile(re.escape(model.name) + r"(_data(_\d+)?|\.data)")
    data = [file for file in files if file.folder == model.folder and named.fullmatch(file.name)]
    config = [file for file in files if file.folder in (root, model.folder) and file.name in CONFIG_FILES]
    return Selection(root, (model, *data, *config))


def _is_needed(file: HubFile) -> bool:
    """Whether a file of an onnxruntime-genai folder is needed: graphs, their data, and the configuration; never code."""
    return file.name in CONFIG_FILES or _GENAI_FILE.fullmatch(file.name) is not None


_GENAI_FILE = re.compile(r"[\w.@+-]*\.(?:onnx(?:[._]data(?:_\d+)?)?|data|bin|jinja)", re.ASCII)
