"""The registry: publish, resolve, aliases, removal, verification, garbage; its database beside other processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model_registry.artifacts import StagedVariant
from model_registry.database import Database
from model_registry.errors import CorruptModel, DatabaseTooNew, InvalidName, ModelInUse, ModelNotFound, RegistryError
from model_registry.records import Manifest, Precision
from model_registry.registry import Registry, open_registry
from model_registry.schema import HEAD, metadata


def test_a_published_version_resolves_by_name_number_and_alias(registry, publish):
    version = publish(metrics={"perplexity": 29.0}, parameters={"precision": "int8"}, licence="MIT")
    assert version.label == "tiny:1"
    assert registry.resolve("tiny") == registry.resolve("tiny:1") == registry.resolve("tiny:live") == version
    assert version.manifest.metrics == {"perplexity": 29.0}
    assert version.manifest.licence == "MIT"
    variant = version.variants[0]
    assert variant.name == "cpu-int8"
    assert (variant.folder / "model.onnx").read_text() == "weights"
    assert [artifact.path for artifact in variant.artifacts] == ["model.onnx", "sub/tokenizer.json"]
    assert version.size_bytes == len("weights") + len("shared")


def test_live_and_previous_follow_new_versions(registry, publish):
    publish(text="one")
    publish(text="two")
    assert registry.resolve("tiny").number == 2
    assert registry.resolve("tiny:previous").number == 1


def test_the_same_content_is_the_same_version(registry, publish):
    first = publish(text="one")
    publish(text="two")
    assert publish(text="one") == first
    assert registry.resolve("tiny").number == 2
    assert [version.number for version in registry.model("tiny").versions] == [1, 2]


def test_files_are_read_only_links_to_shared_blobs(registry, publish, home):
    one, two = publish(text="one"), publish(text="two")
    paths = [version.variants[0].folder / "sub" / "tokenizer.json" for version in (one, two)]
    assert paths[0].samefile(paths[1])
    assert paths[0].stat().st_mode & 0o222 == 0
    assert not any(path.is_symlink() for path in home.rglob("*"))
    assert len([path for path in (home / "blobs").rglob("*") if path.is_file()]) == 3


@pytest.mark.parametrize("name", ["nope", "tiny:2", "tiny:candidate", "", ":", "tiny:99999999999999999999"])
def test_an_unknown_name_lists_what_exists(registry, publish, name):
    publish()
    with pytest.raises(ModelNotFound, match="tiny"):
        registry.resolve(name)


@pytest.mark.parametrize("name", ["", "Tiny", "a/b", "..", "a:1", "a ", "-a", "a" * 97])
def test_an_impossible_name_is_refused(publish, registry, name):
    with pytest.raises(InvalidName):
        publish(name=name)
    assert registry.models() == ()


def test_aliases_move_and_live_remembers(registry, publish):
    publish(text="one")
    publish(text="two")
    registry.set_alias("tiny", "candidate", 1, weight=0.1)
    assert registry.resolve("tiny:candidate").number == 1
    registry.set_alias("tiny", "live", 1)
    assert (registry.resolve("tiny").number, registry.resolve("tiny:previous").number) == (1, 2)
    assert {alias.name: alias.weight for alias in registry.model("tiny").aliases}["candidate"] == 0.1
    with pytest.raises(ModelNotFound):
        registry.set_alias("tiny", "live", 7)
    with pytest.raises(InvalidName):
        registry.set_alias("tiny", "7", 1)


def test_remove_refuses_what_is_in_use_or_aliased(registry, publish):
    publish(text="one")
    publish(text="two")
    publish(text="three")
    with pytest.raises(ModelInUse, match="previous"):
        registry.remove("tiny:2")
    with pytest.raises(ModelInUse, match="in use"):
        registry.remove("tiny:1", in_use={"tiny:1"})
    with pytest.raises(ModelInUse, match="in use"):
        registry.remove("tiny", in_use={"tiny:3"})
    assert registry.remove("tiny:1") == len("one")
    assert [version.number for version in registry.model("tiny").versions] == [2, 3]


def test_a_forced_removal_lets_live_fall_back(registry, publish, home):
    publish(text="one")
    publish(text="two")
    folder = registry.resolve("tiny").variants[0].folder
    registry.remove("tiny:live", force=True)
    assert registry.resolve("tiny").number == 1
    assert not folder.exists()
    assert publish(text="three").number == 3, "numbers are not used twice"


def test_removing_a_model_takes_everything_along(registry, publish, home):
    publish(text="one")
    publish(text="two")
    assert registry.remove("tiny") == len("one") + len("two") + len("shared")
    assert registry.models() == ()
    assert not [path for folder in ("blobs", "models") for path in (home / folder).rglob("*") if path.is_file()]


def test_blobs_that_another_model_needs_stay(registry, publish):
    publish(name="a", text="same")
    other = publish(name="b", text="same")
    registry.remove("a")
    assert registry.verify("b") == ()
    assert (other.variants[0].folder / "model.onnx").read_text() == "same"


def test_verify_names_every_damage(registry, publish):
    version = publish()
    folder = version.variants[0].folder
    assert registry.verify("tiny") == ()
    (folder / "model.onnx").chmod(0o644)
    (folder / "model.onnx").write_text("WEIGHTS")
    (folder / "sub" / "tokenizer.json").unlink()
    (folder / "extra.bin").write_text("")
    problems = {problem.path: problem.message for problem in registry.verify("tiny:1")}
    assert "sha256" in problems["cpu-int8/model.onnx"]
    assert "missing" in problems["cpu-int8/sub/tokenizer.json"]
    assert "not part" in problems["cpu-int8/extra.bin"]
    with pytest.raises(ModelNotFound):
        registry.verify("nope")


def test_publishing_again_repairs_a_damaged_version(registry, publish):
    version = publish()
    (version.variants[0].folder / "model.onnx").unlink()
    assert publish() == version
    assert registry.verify("tiny") == ()


def test_a_rotten_blob_is_replaced(registry, publish):
    path = publish().variants[0].folder / "model.onnx"
    path.chmod(0o644)
    path.write_text("WEIGHTS")
    registry.remove("tiny:1", force=True)
    publish()
    assert registry.verify("tiny") == ()


def test_garbage_is_collected_and_the_rest_stays(registry, publish, home):
    publish()
    (home / "blobs" / "sha256" / "00").mkdir()
    (home / "blobs" / "sha256" / "00" / ("0" * 64)).write_bytes(b"12345")
    (home / "models" / "tiny" / "9").mkdir()
    (home / "models" / "gone" / "1").mkdir(parents=True)
    assert registry.collect_garbage() == 5
    assert registry.verify("tiny") == ()
    assert not (home / "models" / "tiny" / "9").exists()
    assert not (home / "models" / "gone").exists()
    assert registry.collect_garbage() == 0


@pytest.mark.parametrize("content", ["empty", "link"])
def test_a_folder_that_is_no_model_is_refused(registry, tmp_path, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    if content == "link":
        (folder / "model.onnx").symlink_to("/etc/hostname")
    manifest = Manifest(source="x", importer="test", architecture="llama", context_length=8)
    with pytest.raises(CorruptModel):
        registry.publish("tiny", manifest, [StagedVariant(Precision.INT8, "cpu", folder)])
    assert registry.models() == ()


def test_another_process_s_writes_are_seen_at_once(registry, publish, home):
    publish(text="one")
    with open_registry(home) as other:
        assert other.resolve("tiny").number == 1
        publish(text="two")
        assert other.resolve("tiny").number == 2
        other.remove("tiny:1", force=True)
    assert [version.number for version in registry.model("tiny").versions] == [2]


def test_threads_publish_and_read_together(registry, publish):
    publish(text="start")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                publish(text=f"{number}-{step}")
                registry.resolve("tiny")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [version.number for version in registry.model("tiny").versions] == list(range(1, 22))
    assert registry.verify("tiny") == ()


def test_a_newer_database_is_refused(registry, publish, home):
    publish()
    registry.database.close()
    with sqlite3.connect(home / "registry.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'from-the-future'")
    connection.close()
    with pytest.raises(DatabaseTooNew, match="Upgrade slmops"):
        Database(home).open()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "registry.db").write_bytes(b"this is no database " * 100)
    with pytest.raises(RegistryError, match=r"registry\.db"):
        Database(tmp_path).open()


def test_the_migrations_arrive_at_the_schema(registry, home):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with registry.database.reading() as reader:
        context = MigrationContext.configure(reader, opts={"compare_type": True})
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, metadata) == []


@pytest.mark.api
def test_an_existing_database_opens_without_alembic(registry, home):
    script = (
        "import sys; from pathlib import Path; from model_registry.database import Database\n"
        f"with Database(Path({str(home)!r})) as database: database.open()\n"
        "heavy = {'alembic', 'onnx', 'onnxruntime', 'gguf', 'huggingface_hub', 'httpx'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


def test_garbage_collection_leaves_stray_files_alone(registry: Registry, publish, home: Path):
    publish()
    strays = [home / "models" / ".DS_Store", home / "models" / "tiny" / "notes.txt"]
    for stray in strays:
        stray.write_text("mine")
    assert registry.collect_garbage() == 0
    assert [stray.read_text() for stray in strays] == ["mine", "mine"]
    assert registry.verify("tiny") == ()
