"""Debian's prometheus scrapes a daemon under load as configured, and every expression of the dashboard has data."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.tasks.benchmark.load import Load, Target, run_load
from tests.doubles.daemon_process import ROOT, daemon_process, free_port, wait_until_answering

API_KEY = "a-key-for-the-test"
MAX_ROUNDS = 60
VARIABLES = {"$model_name": ".*", "$__rate_interval": "15s"}


def expressions() -> list[str]:
    dashboard = json.loads((ROOT / "deploy/grafana/slmops.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def substituted(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"{expression} uses a variable that the dashboard does not define"
    return expression


def prometheus_program() -> str:
    unpacked = Path(sys.prefix) / "prometheus/usr/bin/prometheus"
    found = shutil.which("prometheus") or (str(unpacked) if unpacked.exists() else None)
    if found is None:
        pytest.skip("prometheus is not installed: apt-get install prometheus (or make test, which unpacks it into .venv)")
    return found


def configuration(folder: Path, target: str) -> Path:
    """deploy/prometheus/prometheus.yml with only the addresses, the key's path and the interval of this test."""
    content = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    key = folder / "key"
    key.write_text(API_KEY)
    (job,) = content["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    job["authorization"]["credentials_file"] = str(key)
    content["global"]["scrape_interval"] = "1s"
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    with daemon_process(tmp_path / "home", SLMOPS_API_KEY=API_KEY) as url:
        yield url


@pytest.fixture
def prometheus(tmp_path: Path, daemon: str) -> Iterator[str]:
    """Its URL, once it is ready."""
    program = prometheus_program()
    address = f"127.0.0.1:{free_port()}"
    config = configuration(tmp_path, daemon.removeprefix("http://"))
    log = tmp_path / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={config}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_answering(f"http://{address}/-/ready", process, log)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def query(prometheus: str, expression: str) -> list[float]:
    """The values that an instant query returns now."""
    address = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(address, timeout=20) as response:
        answer: dict[str, Any] = json.load(response)
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def test_every_expression_of_the_dashboard_returns_data_under_load(prometheus: str, daemon: str) -> None:
    missing = [substituted(expression) for expression in expressions()]
    assert len(missing) > 30
    target = Target(f"{daemon}/v1", api_key=API_KEY)
    load = Load(num_clients=4, num_requests=40, max_tokens=32, shared_prefix_words=50)
    for _ in range(MAX_ROUNDS):
        report = asyncio.run(run_load(target, load))
        assert report.num_errors == 0, report.first_error
        missing = [text for text in missing if not any(map(math.isfinite, query(prometheus, text)))]
        if not missing:
            return
    pytest.fail("no data for:\n" + "\n".join(missing))


def test_prometheus_sees_the_model_by_name(prometheus: str, daemon: str) -> None:
    """What the dashboard's model variable lists."""
    dashboard = json.loads((ROOT / "deploy/grafana/slmops.json").read_text())
    (variable,) = [v for v in dashboard["templating"]["list"] if v["name"] == "model_name"]
    metric = variable["definition"].removeprefix("label_values(").split(",")[0]
    for _ in range(MAX_ROUNDS):
        asyncio.run(run_load(Target(f"{daemon}/v1", api_key=API_KEY), Load(num_requests=8)))
        address = f"{prometheus}/api/v1/label/model_name/values?{urllib.parse.urlencode({'match[]': metric})}"
        with urllib.request.urlopen(address, timeout=20) as response:
            if json.load(response)["data"] == ["smollm2-135m"]:
                return
    pytest.fail(f"no {metric} with model_name smollm2-135m was scraped")
