"""A running Prometheus that is configured as `deploy/prometheus` says, but for addresses, the key's path and its haste."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.prometheus_programs import PROMETHEUS, program
from tests.doubles.daemon_process import free_port, wait_until_answering


@dataclass(frozen=True, slots=True)
class Prometheus:
    url: str

    def samples(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and values that an instant query returns now. Raises HTTPError for what is no expression."""
        result = self._data(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def label_values(self, series: str, label: str) -> set[str]:
        return set(self._data(f"label/{label}/values?{urllib.parse.urlencode({'match[]': series})}"))

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

    def _data(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=20) as response:
            return json.load(response)["data"]


def configuration(folder: Path, targets: Sequence[str], api_key: str) -> Path:
    """Every second a scrape and an evaluation; alerts fire at once."""
    content = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    key = folder / "key"
    key.write_text(api_key)
    (job,) = content["scrape_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    job["authorization"]["credentials_file"] = str(key)
    content["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for name in content["rule_files"]:
        groups = yaml.safe_load((PROMETHEUS / name).read_text())
        for rule in (rule for group in groups["groups"] for rule in group["rules"]):
            rule.pop("for", None)
        (folder / name).write_text(yaml.safe_dump(groups))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def prometheus_process(folder: Path, targets: Sequence[str], api_key: str) -> Iterator[Prometheus]:
    """From when it is ready. targets: `host:port` of each. Skips the test where Prometheus is not installed."""
    found = program("prometheus")
    address = f"127.0.0.1:{free_port()}"
    config, log = configuration(folder, targets, api_key), folder / "prometheus.log"
    options = [f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    with log.open("wb") as output:
        process = subprocess.Popen([found, *options, "--log.level=warn"], stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until_answering(f"http://{address}/-/ready", process, log)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(20)
