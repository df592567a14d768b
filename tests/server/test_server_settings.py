"""Settings: order of sources, where values came from, what is refused and with which words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from jobs.permissions import EndpointSource
from runtime.pool.capacity import Budget
from runtime.pool.memory import machine_memory_bytes
from server.settings.daemon import MASK, EffectiveSetting, Settings, effective
from server.settings.jobs import JobSettings
from server.settings.toml_file import InvalidSettings

pytestmark = pytest.mark.unit


def of(settings: Settings, name: str) -> EffectiveSetting:
    return next(line for line in effective(settings) if line.name == name)


def test_flags_win_over_variables_over_the_file_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("slmops.toml").write_text("port = 1\nnum_slots = 2\nthreads = 3\n")
    monkeypatch.setenv("SLMOPS_PORT", "11")
    monkeypatch.setenv("SLMOPS_NUM_SLOTS", "12")
    settings = Settings(port=21)
    assert (settings.port, settings.num_slots, settings.threads, settings.max_waiting) == (21, 12, 3, 256)
    origins = [of(settings, name).origin for name in ("port", "num_slots", "threads", "max_waiting")]
    assert origins == ["flag", "SLMOPS_NUM_SLOTS", str(Path.cwd() / "slmops.toml"), "default"]


def test_a_flag_that_is_none_was_not_given() -> None:
    settings = Settings(port=None)
    assert (settings.port, of(settings, "port").origin) == (8000, "default")


def test_the_file_in_the_home_folder_counts_when_the_current_folder_has_none(tmp_path: Path) -> None:
    home = tmp_path / "elsewhere"
    home.mkdir()
    (home / "slmops.toml").write_text("port = 7")
    assert Settings(home=home).port == 7
    Path("slmops.toml").write_text("port = 8")
    assert Settings(home=home).port == 8


def test_home_is_absolute_and_user_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert Settings().home == Path("/somewhere/.slmops")
    assert Settings(home="here").home == Path.cwd() / "here"


def test_lists_come_from_commas_and_sizes_from_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_ALLOWED_HOSTS", "a.example, b.example")
    monkeypatch.setenv("SLMOPS_MAX_BODY_BYTES", "2MiB")
    settings = Settings()
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert of(settings, "max_body_bytes").value == 2 << 20


def test_the_key_is_masked_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_API_KEY", "hush-hush")
    settings = Settings()
    assert of(settings, "api_key") == EffectiveSetting("api_key", MASK, "SLMOPS_API_KEY", of(settings, "api_key").description)
    assert "hush" not in repr(settings) + str(effective(settings))


def test_space_around_the_key_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_API_KEY", " k\n")
    for settings in (Settings(), Settings(api_key=SecretStr("\tk "))):
        assert settings.api_key is not None
        assert settings.api_key.get_secret_value() == "k"


def test_every_setting_is_described() -> None:
    assert all(line.description for line in effective(Settings()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("num_slots", 0),
        ("max_waiting", -5),
        ("threads", 99999),
        ("context_length", 0),
        ("load_timeout_s", float("nan")),
        ("request_timeout_s", float("inf")),
        ("shutdown_grace_s", -1),
        ("max_token_gap_s", 0),
        ("max_body_bytes", -1),
        ("prefix_cache_bytes", "lots"),
        ("engine", "steam"),
        ("log_level", "loud"),
        ("log_format", "xml"),
        ("api_key", ""),
        ("api_key", " \n"),
        ("host", ""),
        ("model", ""),
        ("offline", "perhaps"),
        ("memory_budget", "lots"),
        ("memory_budget", "0%"),
        ("memory_budget", "101%"),
        ("memory_budget", 80),
        ("max_loaded_models", 0),
        ("keep_alive", "soon"),
        ("replicas", 0),
        ("step_timeout_s", 0),
        ("providers", "abacus"),
        ("providers", ""),
        ("providers", "auto,cpu"),
    ],
)
def test_an_absurd_value_is_refused_by_name_and_origin(name: str, value: Any) -> None:
    with pytest.raises(InvalidSettings, match=rf"^setting '{name}' \(from flag\) is not usable: "):
        Settings(**{name: value})


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_PORT", "eighty")
    with pytest.raises(InvalidSettings, match="from SLMOPS_PORT"):
        Settings()


def test_a_refused_key_is_not_quoted() -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings(api_key=["hush-hush"])
    assert "hush" not in str(caught.value)


def test_an_unknown_key_of_the_file_is_named_with_the_known_ones() -> None:
    Path("slmops.toml").write_text("prot = 1")
    with pytest.raises(InvalidSettings, match=r"unknown setting 'prot' \(from .*slmops.toml\); the settings are .*port"):
        Settings()


def test_a_broken_file_is_named() -> None:
    Path("slmops.toml").write_text("port = = 1")
    with pytest.raises(InvalidSettings, match=r"slmops.toml is not valid TOML: .*line 1"):
        Settings()


def test_engine_options_come_from_the_settings(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings(num_slots=3, max_waiting=5, threads=2, context_length=128, max_token_gap_s=0.5)
    options = settings.of_model("any:1").engine_options()
    got = (options.num_slots, options.max_waiting, options.threads, options.context_length, options.max_token_gap_s)
    assert got == (3, 5, 2, 128, 0.5)


@pytest.mark.parametrize(
    ("budget", "expected_bytes"),
    [("50%", machine_memory_bytes() // 2), ("4GiB", 4 << 30), (3 << 30, 3 << 30), (" 1.5 GiB ", 3 << 29)],
)
def test_the_memory_budget_is_a_share_or_a_size(make_settings: Callable[..., Settings], budget: Any, expected_bytes: int) -> None:
    limits = make_settings(memory_budget=budget, max_loaded_models=2).pool_limits()
    assert limits.budget == Budget(expected_bytes, 2)


def test_the_longest_step_bounds_a_workers_patience(make_settings: Callable[..., Settings]) -> None:
    assert make_settings(step_timeout_s=7).patience().step_s == 7


def test_a_versions_table_wins_over_its_models_over_what_holds_for_all() -> None:
    Path("slmops.toml").write_text(
        """
        num_slots = 2
        threads = 2
        keep_alive = "1h"
        providers = ["cuda", "cpu"]
        [models."m-1.5b"]
        threads = 3
        keep_alive = -1
        [models."m-1.5b:2"]
        num_slots = 4
        pin = true
        """
    )
    settings = Settings()

    def read(label: str) -> tuple[Any, ...]:
        of = settings.of_model(label)
        return of.num_slots, of.threads, of.keep_alive, of.pin, of.providers

    assert read("other:2") == (2, 2, 3600, None, ("cuda", "cpu"))
    assert read("m-1.5b:1") == (2, 3, -1, None, ("cuda", "cpu"))
    assert read("m-1.5b:2") == (4, 3, -1, True, ("cuda", "cpu"))


def test_the_variable_has_the_tables_as_json_and_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("slmops.toml").write_text("[models.a]\npin = true\n[models.b]\nreplicas = 2\n")
    monkeypatch.setenv("SLMOPS_MODELS", '{"a": {"keep_alive": "5m"}}')
    settings = Settings()
    assert (settings.of_model("a:1").keep_alive, settings.of_model("a:1").pin, settings.of_model("b:1").replicas) == (300, None, 1)
    assert of(settings, "models") == EffectiveSetting(
        "models", {"a": {"keep_alive": 300.0}}, "SLMOPS_MODELS", of(settings, "models").description
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"setting 'models' \(from SLMOPS_MODELS\) is not usable: must be a JSON object"),
        ("[]", r"setting 'models' \(from SLMOPS_MODELS\)"),
        ('{"a": {"replicas": 0}}', r"setting 'models.a.replicas' \(from SLMOPS_MODELS\)"),
        ('{"a": {"port": 1}}', r"unknown setting 'models.a.port' .*; the settings of a model are engine, providers, "),
        ('{"a:live": {"pin": true}}', r"'a:live' names an alias; use the model's name, or a version as `name:number`"),
    ],
)
def test_a_bad_table_is_named(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("SLMOPS_MODELS", text)
    with pytest.raises(InvalidSettings, match=message):
        Settings()


def test_a_name_with_dots_that_was_not_quoted_is_explained() -> None:
    Path("slmops.toml").write_text("[models.qwen2.5-0.5b]\npin = true\n")
    with pytest.raises(InvalidSettings, match=r'a name with dots needs quotes: \[models."a.b"\]'):
        Settings()


def test_code_is_allowed_by_the_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().jobs.allow_code is False
    Path("slmops.toml").write_text("[jobs]\nallow_code = true\n")
    assert Settings().jobs.allow_code is True
    monkeypatch.setenv("SLMOPS_JOBS", '{"max_running": 2}')
    assert Settings().jobs.allow_code is False, "the variable replaces the whole table"
    for value in ('{"allow_code": true}', '{"allow_code": false, "threads": 1}'):
        monkeypatch.setenv("SLMOPS_JOBS", value)
        with pytest.raises(InvalidSettings, match=r"jobs\.allow_code' \(from SLMOPS_JOBS\) can be set in slmops\.toml only"):
            Settings()
    monkeypatch.delenv("SLMOPS_JOBS")
    monkeypatch.setenv("slmops_jobs", '{"allow_code": true}')
    with pytest.raises(InvalidSettings, match="slmops_jobs"):
        Settings()
    monkeypatch.delenv("slmops_jobs")
    for flag in ({"allow_code": True}, JobSettings(allow_code=True)):
        with pytest.raises(InvalidSettings, match="from flag"):
            Settings(jobs=flag)


def test_roots_are_whole_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    jobs = Settings(jobs={"data_roots": ["~/data", "/more"], "output_roots": ["/out"]}).jobs
    assert jobs.permissions({}).data_roots == (Path("/somewhere/data"), Path("/more"))
    with pytest.raises(InvalidSettings, match=r"jobs\.data_roots.*must be a whole path"):
        Settings(jobs={"data_roots": ["data"]})


def test_endpoints_own_their_keys() -> None:
    text = '[endpoints.teacher]\nurl = "https://host/v1/"\nkey_env = "TEACHER_KEY"\n[endpoints.here]\nurl = "http://127.0.0.1:8080/v1"\n'
    Path("slmops.toml").write_text(text)
    settings = Settings()
    assert settings.endpoints["teacher"].source() == EndpointSource("https://host/v1", "TEACHER_KEY")
    assert of(settings, "endpoints").value == {
        "teacher": {"url": "https://host/v1", "key_env": "TEACHER_KEY", "private": False},
        "here": {"url": "http://127.0.0.1:8080/v1", "private": False},
    }


@pytest.mark.parametrize(
    ("table", "expected_text"),
    [
        ({"url": "ftp://host/v1"}, "must be an address"),
        ({"url": "https://user:pw@host/v1"}, "no user and password"),
        ({"url": "https://host/v1?key=x"}, "without"),
        ({"url": "http://host:99999/v1"}, "no address"),
        ({"url": "https://host/v1", "key": "s3cret"}, "unknown setting 'endpoints.teacher.key'.*settings of an endpoint are url"),
        ({"url": "https://host/v1", "key_env": "A", "key_file": "/b"}, "not both"),
        ({}, "required"),
    ],
)
def test_endpoints_that_cannot_be_used(table: dict[str, str], expected_text: str) -> None:
    with pytest.raises(InvalidSettings, match=expected_text) as caught:
        Settings(endpoints={"teacher": table})
    assert "s3cret" not in str(caught.value)
    assert "pw@" not in str(caught.value)


def test_an_endpoint_s_name_is_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMOPS_ENDPOINTS", '{"../x": {"url": "https://host/v1"}}')
    with pytest.raises(InvalidSettings, match="is no endpoint's name"):
        Settings()


def test_a_byte_order_mark_in_the_file_is_read_over() -> None:
    Path("slmops.toml").write_bytes(b"\xef\xbb\xbfport = 9001\r\n")
    assert Settings().port == 9001


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("port = 9001".encode("utf-16"), "slmops.toml cannot be read: it is UTF-16: save or send it as UTF-8"),
        ("port = 9001".encode("utf-16-be"), "it is UTF-16"),
        ("port = 9001".encode("utf-32"), "it is UTF-32"),
        ("model = 'caf\u00e9'".encode("latin-1"), "it is not UTF-8 (byte 12): save or send it as UTF-8"),
        (b"\x1f\x8b\x08\x00", "slmops.toml cannot be read: it is gzip: unpack it first"),
    ],
)
def test_other_encodings_of_the_file_are_named_with_the_remedy(content: bytes, named: str) -> None:
    Path("slmops.toml").write_bytes(content)
    with pytest.raises(InvalidSettings, match=re.escape(named)):
        Settings()
