"""The dashboards' files: what their source writes, laid out without gaps in what a person needs to read them."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from deploy.grafana.source.dashboard import FOLDER, written
from deploy.grafana.source.dashboards import DASHBOARDS
from server.metrics.catalog import described_metrics
from server.metrics.declaration import MetricType

pytestmark = pytest.mark.unit

FILES = sorted(FOLDER.glob("*.json"))
VARIABLES = {"datasource", "job", "instance", "model_name"}
BUILT_IN = {"__rate_interval"}
FIELDS = {"title", "description", "type", "gridPos", "id", "fieldConfig", "options", "targets", "datasource"}


def contents() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in FILES]


def panels() -> list[tuple[str, dict[str, Any]]]:
    """Of all dashboards, without rows."""
    return [(d["uid"], panel) for d in contents() for panel in d["panels"] if panel["type"] != "row"]


def targets() -> list[dict[str, Any]]:
    return [target for _, panel in panels() for target in panel["targets"]]


def test_the_files_are_what_the_source_writes() -> None:
    assert {path.name: path.read_text() for path in FILES} == {each.file_name: written(each) for each in DASHBOARDS}


def test_dashboards_have_addresses_titles_and_links_to_each_other() -> None:
    assert len({each["uid"] for each in contents()}) == len({each["title"] for each in contents()}) == len(FILES) == 3
    for content in contents():
        (link,) = content["links"]
        assert set(link["tags"]) <= set(content["tags"])
        assert link["includeVars"]
        assert link["keepTime"]


@pytest.mark.parametrize("content", contents(), ids=lambda content: content["uid"])
def test_variables_are_those_that_expressions_use(content: dict[str, Any]) -> None:
    variables = {each["name"]: each for each in content["templating"]["list"]}
    assert set(variables) == VARIABLES
    assert all(variables[name]["multi"] and variables[name]["includeAll"] for name in VARIABLES - {"datasource"})
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(content["panels"])))
    assert used <= VARIABLES | BUILT_IN


@pytest.mark.parametrize("content", contents(), ids=lambda content: content["uid"])
def test_panels_have_distinct_ids_and_do_not_overlap(content: dict[str, Any]) -> None:
    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])
    taken = [cell for panel in content["panels"] for cell in cells(panel["gridPos"])]
    assert len(taken) == len(set(taken))
    assert all(0 <= x < 24 for x, _ in taken)


def cells(place: dict[str, int]) -> itertools.product[tuple[int, int]]:
    return itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))


@pytest.mark.parametrize(("uid", "panel"), panels(), ids=lambda value: value if isinstance(value, str) else value["title"])
def test_a_panel_can_be_read(uid: str, panel: dict[str, Any]) -> None:
    assert panel.keys() == FIELDS
    assert panel["description"].endswith((".", "..."))
    assert len(panel["description"].split()) > 3
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert all(target["legendFormat"] for target in panel["targets"])
    assert len({target["legendFormat"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_titles_are_distinct_within_a_dashboard() -> None:
    keys = [(uid, panel["title"]) for uid, panel in panels()]
    assert len(keys) == len(set(keys))


def test_counters_are_shown_as_rates_and_lines_are_never_made_up() -> None:
    counters = [each.name for each in described_metrics() if each.type is MetricType.COUNTER]
    for _, panel in panels():
        for target in panel["targets"]:
            assert panel["type"] == "stat" or "vector(" not in target["expr"]
            for name in counters:
                series = rf"{name}\{{[^}}]*\}}"
                bare = re.sub(rf"(rate|increase)\({series}\[[^]]*\]\)|{series} unless {series} offset", "", target["expr"])
                assert not re.search(rf"\b{name}\b", bare), target["expr"]


def test_what_is_shown_is_described() -> None:
    described = {each.name for each in described_metrics()}
    described |= {f"{each.name}_{part}" for each in described_metrics() for part in ("bucket", "sum", "count")}
    found = {name for target in targets() for name in re.findall(r"\b(?:slmops|process)_\w+|vllm:\w+", target["expr"])}
    assert len(found) > 40
    assert found - described == set()
