"""Debian's Prometheus scrapes two daemons under load as configured: every expression of dashboards and rules has data.

A synthetic target beside them has also what two idle homes cannot show: jobs, fallbacks, failures.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from jobs.tasks.benchmark.load import Load, Target, run_load
from tests.deploy.prometheus_programs import PROMETHEUS
from tests.deploy.prometheus_server import Prometheus, prometheus_process
from tests.doubles.daemon_process import ROOT, daemon_process, free_port
from tests.doubles.live_server import chat_body
from tests.doubles.synthetic_target import SyntheticTarget, synthetic_target

API_KEY = "a-key-for-the-test"
MODEL = "smollm2-135m"
MAX_ROUNDS = 60
NOT_WITH_FAKES = (  # jobs need a model; no quota is set, and nothing is collected
    *("slmops_job", "slmops_provider_fallbacks", "slmops_disk_quota", "slmops_disk_collected"),
)
DASHBOARDS = [json.loads(path.read_text()) for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))]
PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard["panels"] if panel["type"] != "row"]


@dataclass(frozen=True, slots=True)
class Machines:
    """What Prometheus scrapes: two daemons by their URLs, a synthetic target, and an address where nothing answers."""

    prometheus: Prometheus
    daemons: tuple[str, str]
    synthetic: SyntheticTarget
    synthetic_address: str
    dead_address: str

    @property
    def daemon_addresses(self) -> list[str]:
        return [url.removeprefix("http://") for url in self.daemons]

    def work(self) -> None:
        """Answers, a failure and a load on both daemons; a step of everything on the synthetic target."""
        load = Load(num_clients=4, num_requests=16, max_tokens=32, shared_prefix_words=50)
        for url in self.daemons:
            headers = {"Authorization": f"Bearer {API_KEY}"}
            httpx.post(f"{url}/v1/chat/completions", json=chat_body("[[fail]]"), headers=headers, timeout=60)
            httpx.post(f"{url}/admin/models/{MODEL}/unload", headers=headers, timeout=60)
            report = asyncio.run(run_load(Target(f"{url}/v1", api_key=API_KEY), load))
            assert report.num_errors == 0, report.first_error
        self.synthetic.advance()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("monitoring")
    with ExitStack() as stack:
        first, second = (stack.enter_context(daemon_process(folder / name, SLMOPS_API_KEY=API_KEY)) for name in ("one", "two"))
        synthetic, synthetic_address = stack.enter_context(synthetic_target())
        dead_address = f"127.0.0.1:{free_port()}"
        targets = [first.removeprefix("http://"), second.removeprefix("http://"), synthetic_address, dead_address]
        prometheus = stack.enter_context(prometheus_process(folder, targets, API_KEY))
        yield Machines(prometheus, (first, second), synthetic, synthetic_address, dead_address)


def substituted(expression: str, *addresses: str) -> str:
    """As Grafana sends it when these daemons are chosen."""
    variables = {"$job": "slmops", "$instance": "|".join(addresses), "$model_name": ".*", "$__rate_interval": "15s"}
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"{expression} uses a variable that the dashboard does not define"
    return expression


def selectors() -> set[str]:
    """Every series that an alert or a recording rule reads, with its matchers."""
    content = [yaml.safe_load((PROMETHEUS / name).read_text()) for name in ("slmops.rules.yml", "slmops.alerts.yml")]
    texts = [rule["expr"] for each in content for group in each["groups"] for rule in group["rules"]]
    return {found for text in texts for found in re.findall(r"\b(?:slmops_|process_|vllm:|job_instance)[\w:]+(?:\{[^}]*\})?", text)}


def expected(machines: Machines) -> set[str]:
    """All expressions that must have data."""
    found = set()
    for expression in (target["expr"] for panel in PANELS for target in panel["targets"]):
        found.add(substituted(expression, machines.synthetic_address))
        if not any(name in expression for name in NOT_WITH_FAKES):
            found |= {substituted(expression, *machines.daemon_addresses)}
            found |= {substituted(expression, address) for address in machines.daemon_addresses}
    return found | selectors()


def test_every_expression_has_data_under_load(machines: Machines) -> None:
    missing = expected(machines)
    assert len(missing) > 200
    for _ in range(MAX_ROUNDS):
        machines.work()
        missing = {each for each in missing if not any(math.isfinite(value) for _, value in machines.prometheus.samples(each))}
        if not missing:
            return
    pytest.fail("no data for:\n" + "\n".join(sorted(missing)))


def test_what_variables_list(machines: Machines) -> None:
    wanted = {"job": {"slmops"}, "instance": {*machines.daemon_addresses, machines.synthetic_address}, "model_name": {MODEL}}
    for variable in (each for dashboard in DASHBOARDS for each in dashboard["templating"]["list"] if each["type"] == "query"):
        (query,) = re.findall(r"label_values\((.*), (\w+)\)", variable["definition"])
        series = substituted(query[0], *machines.daemon_addresses) if query[1] == "model_name" else query[0].replace("$job", ".*")
        for _ in range(MAX_ROUNDS):
            if machines.prometheus.label_values(series, query[1]) == wanted[query[1]]:
                break
            machines.work()
        else:
            pytest.fail(f"{variable['definition']} lists {machines.prometheus.label_values(series, query[1])}")


@pytest.mark.parametrize("panel", [panel for panel in PANELS if panel["type"] == "timeseries"], ids=lambda panel: panel["title"])
def test_every_line_of_two_daemons_has_a_name_of_its_own(machines: Machines, panel: dict[str, Any]) -> None:
    names = []
    for target in panel["targets"]:
        for labels, _ in machines.prometheus.samples(substituted(target["expr"], *machines.daemon_addresses)):
            parts = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
            assert set(parts) <= labels.keys(), target["legendFormat"]
            names.append(re.sub(r"\{\{(\w+)\}\}", lambda found, labels=labels: labels[found[1]], target["legendFormat"]))
    assert sorted(names) == sorted(set(names))


def test_rules_are_healthy_and_the_dead_daemon_is_noticed(machines: Machines) -> None:
    down = {"alertname": "SlmopsDown", "instance": machines.dead_address, "severity": "critical", "alertstate": "firing"}
    for _ in range(MAX_ROUNDS):
        if any(down.items() <= labels.items() for labels, _ in machines.prometheus.samples("ALERTS")):
            break
        machines.work()
    else:
        pytest.fail("SlmopsDown does not fire")
    assert {(rule["name"], rule.get("lastError")) for rule in machines.prometheus.rules() if rule["health"] == "err"} == set()
    (alert,) = next(rule["alerts"] for rule in machines.prometheus.rules() if rule["name"] == "SlmopsDown")
    assert alert["annotations"]["runbook_url"] == "docs/operate/monitoring/#slmopsdown"


def test_annotations_are_valid_expressions(machines: Machines) -> None:
    """They mark what happened; nothing needs to have happened."""
    for dashboard in DASHBOARDS:
        for annotation in dashboard["annotations"]["list"]:
            machines.prometheus.samples(substituted(annotation["expr"], *machines.daemon_addresses))


def test_the_key_is_needed(machines: Machines, tmp_path: Path) -> None:
    with prometheus_process(tmp_path, machines.daemon_addresses, "another-key") as prometheus:
        for _ in range(MAX_ROUNDS):
            if {value for _, value in prometheus.samples("up")} == {0.0}:
                return
            machines.work()
    pytest.fail("daemons were scraped with a wrong key")
