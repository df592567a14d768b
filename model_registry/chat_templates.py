"""Whether a chat template can be compiled, for a warning at import. Reads its syntax; runs and folds nothing of it.

The environment is that of `apply_chat_template`: Jinja with loop controls. Rendering is the runtime's.
"""

from __future__ import annotations

from jinja2 import Environment, TemplateSyntaxError, nodes

MAX_CHARS = 1 << 20


def template_fault(source: str) -> str | None:
    """What is wrong with it, None when it compiles."""
    if len(source) > MAX_CHARS:
        return f"it has more than {MAX_CHARS} characters"
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])  # noqa: S701 - nothing is rendered
    try:
        template = environment.parse(source)
    except TemplateSyntaxError as error:
        return f"{(error.message or '').rstrip('.')} (line {error.lineno})"
    except RecursionError:
        return "it is nested too deeply"
    unknown = [node.name for node in template.find_all(nodes.Filter) if node.name not in environment.filters]
    unknown += [node.name for node in template.find_all(nodes.Test) if node.name not in environment.tests]
    return f"it uses {unknown[0]!r}, which there is not" if unknown else None
