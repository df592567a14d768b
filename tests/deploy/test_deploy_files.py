"""The files of deploy/ and the Dockerfile: they parse, name what exists, and keep the rules of careful installation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.settings.daemon import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SETTING_NAMES = {f"SLMOPS_{name.upper()}" for name in Settings.model_fields}


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments) in order; continuation lines joined, comments dropped."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text())
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines if line.strip()]


def arguments(instruction: str) -> list[str]:
    return [rest for name, rest in dockerfile() if name == instruction]


def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return content


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read(DEPLOY / "slmops.service")
    return parser


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one image, those of the images that it begins from first."""
    lines = dockerfile()
    heads = {rest.split()[-1]: (index, rest.split()[0]) for index, (kind, rest) in enumerate(lines) if kind == "FROM"}
    if name not in heads:
        return []
    start, parent = heads[name]
    end = next((index for index in range(start + 1, len(lines)) if lines[index][0] == "FROM"), len(lines))
    return stage(parent) + lines[start + 1 : end]


IMAGES = ("serve", "jobs")


def test_images_begin_from_debian_and_the_last_is_the_one_without_jobs() -> None:
    stages = [rest.split() for rest in arguments("FROM")]
    assert {words[0] for words in stages} - {words[2] for words in stages} == {"debian:bookworm-slim"}
    assert stages[-1][2] == "serve"


@pytest.mark.parametrize("image", IMAGES)
def test_images_hold_no_tools_to_build_with_and_do_not_run_as_root(image: str) -> None:
    instructions = stage(image)
    assert not any(kind == "RUN" and "pip" in rest for kind, rest in instructions)
    (user,) = [rest for kind, rest in instructions if kind == "USER"]
    assert int(user.split(":")[0]) > 0


@pytest.mark.parametrize("image", IMAGES)
def test_images_have_a_healthcheck_a_volume_and_their_home_in_it(image: str) -> None:
    instructions = stage(image)
    (check,) = [rest for kind, rest in instructions if kind == "HEALTHCHECK"]
    command = json.loads(check.split("CMD", 1)[1])
    assert command[0] == "python3"
    compile(command[2], "healthcheck", "exec")
    assert "/health" in command[2]
    assert ("VOLUME", "/var/lib/slmops") in instructions
    assert any(kind == "ENV" and "SLMOPS_HOME=/var/lib/slmops" in rest for kind, rest in instructions)


def test_the_image_of_jobs_installs_all_that_jobs_need_at_the_versions_that_were_tested() -> None:
    installs = [rest for kind, rest in stage("build-jobs") if kind == "RUN" and "pip" in rest]
    assert any("torch" in rest and "$TORCH_INDEX" in rest for rest in installs)
    assert "constraints.txt" in installs[-1]
    assert "[olive]" in installs[-1]  # which includes tune


def test_the_builder_gets_every_package_and_nothing_else_of_weight() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"server", "jobs", "runtime", "model_registry", "pyproject.toml", "constraints.txt"} <= kept
    assert all((ROOT / name).exists() for name in kept)
    assert not {"tests", ".venv", ".git"} & kept


def test_settings_in_deployments_exist() -> None:
    files = (ROOT / "Dockerfile", DEPLOY / "compose.yaml", DEPLOY / "slmops.service", DEPLOY / "slmops-as-service.sh")
    used = {name for path in files for name in re.findall(r"SLMOPS_[A-Z_]*[A-Z]", path.read_text())}
    assert used <= SETTING_NAMES
    assert "SLMOPS_API_KEY" in used


def test_compose_mounts_exist_and_daemon_cannot_start_without_a_key() -> None:
    services = compose()["services"]
    assert set(services) == {"slmops", "prometheus", "grafana"}
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", ())]
    assert all((DEPLOY / mount).exists() for mount in mounts if mount.startswith("."))
    assert {mount for mount in mounts if not mount.startswith(".")} <= set(compose()["volumes"])
    assert ":?" in services["slmops"]["environment"]["SLMOPS_API_KEY"]


def test_compose_publishes_on_loopback_only() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_scrapes_the_service_of_the_compose_file() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    daemon = compose()["services"][host]
    assert daemon["environment"]["SLMOPS_ALLOWED_HOSTS"] == host
    assert daemon["ports"][0].endswith(f":{port}")
    secret = Path(job["authorization"]["credentials_file"]).name
    assert secret in compose()["services"]["prometheus"]["secrets"]


def test_grafana_finds_its_datasource_and_dashboard() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards/slmops.yaml").read_text())["providers"]
    assert source["type"] == "prometheus"
    mounts = compose()["services"]["grafana"]["volumes"]
    assert any(mount.split(":")[1].startswith(provider["options"]["path"]) for mount in mounts)


def test_prometheus_and_grafana_get_the_folders_of_rules_and_dashboards() -> None:
    services = compose()["services"]
    mounts = {mount.rsplit(":", 1)[0] for name in ("prometheus", "grafana") for mount in services[name]["volumes"]}
    assert {"./prometheus:/etc/prometheus", "./grafana/dashboards:/var/lib/grafana/dashboards"} <= mounts
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    home = Path(services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (DEPLOY / "grafana/dashboards" / home.name).exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("User", "slmops"),
        ("Type", "notify"),
        ("PrivateUsers", "yes"),
        ("UMask", "0077"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("CapabilityBoundingSet", ""),
        ("KillMode", "mixed"),
        ("StateDirectory", "slmops"),
    ],
)
def test_unit_is_hardened(option: str, value: str) -> None:
    assert unit()["Service"][option] == value


def test_unit_waits_longer_than_the_grace_period() -> None:
    assert int(unit()["Service"]["TimeoutStopSec"]) > Settings.model_fields["shutdown_grace_s"].default


def test_the_users_of_unit_and_sysusers_are_the_same() -> None:
    (line,) = [line for line in (DEPLOY / "slmops.sysusers.conf").read_text().splitlines() if line.startswith("u ")]
    assert line.split()[1] == unit()["Service"]["User"]
    home = unit()["Service"]["WorkingDirectory"]
    assert home in line
    assert home == f"/var/lib/{unit()['Service']['StateDirectory']}"


def test_operators_commands_run_as_the_service_does() -> None:
    script = (DEPLOY / "slmops-as-service.sh").read_text()
    service = unit()["Service"]
    assert service["ExecStart"].split()[0] in script
    assert f"--uid={service['User']}" in script
    for option in ("EnvironmentFile", "UMask", "StateDirectory", "StateDirectoryMode", "WorkingDirectory"):
        assert f"--property={option}={service[option]}" in script
    assert subprocess.run(["sh", "-n", str(DEPLOY / "slmops-as-service.sh")], check=False).returncode == 0


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    installed = tmp_path / "slmops"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    copy = tmp_path / "slmops.service"
    copy.write_text(
        (DEPLOY / "slmops.service")
        .read_text()
        .replace("/opt/slmops/current/bin/slmops", str(installed))
        .replace("=slmops\nGroup=slmops", "=root\nGroup=root")
    )
    run = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
