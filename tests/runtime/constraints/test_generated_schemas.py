"""Five hundred generated schemas: every answer that ends validates."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import given
from jsonschema import Draft202012Validator, FormatChecker

from tests.effort import drawn
from tests.runtime.constraints.generated_schemas import schemas
from tests.runtime.constraints.grammar_walks import byte_compiler, random_answer, schema_grammar

SCHEMAS, WALKS = 500, 2
FORMATS = FormatChecker(("date", "email", "ipv4", "ipv6", "uuid"))


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.datetime.fromisoformat(value.upper()))


def test_answers_validate(record_property: Callable[[str, object], None]) -> None:
    compiler = byte_compiler()
    tally: Counter[str] = Counter()
    draws = drawn(SCHEMAS)

    @draws
    @given(schemas())
    def check(schema: dict[str, Any]) -> None:
        make = compiler.compile(schema_grammar(schema))
        tally["schemas"] += 1
        validator = Draft202012Validator(schema, format_checker=FORMATS)
        for seed in range(WALKS):
            if (answer := random_answer(make(), Random(seed), most=150)) is not None:
                validator.validate(json.loads(answer))
                tally["answers"] += 1

    check()
    for name, count in tally.items():
        record_property(name, count)
    assert tally["schemas"] >= draws.max_examples
    assert tally["answers"] >= draws.max_examples  # the rest are walks that did not end in time
