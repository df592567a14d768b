"""`slmops serve`: the daemon in the foreground, after making sure that the model which the settings name is on disk.

Owns its flags; everything else belongs to the settings and the app.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.configuration import settings_from
from server.cli.failures import CommandFailed

if TYPE_CHECKING:
    from server.settings.daemon import Settings


def settings_with_model(**flags: Any) -> Settings:
    """The settings of these flags, naming a model that the registry has: a missing one is pulled, with a progress bar.

    `model` may be a reference (a catalog name, `hf://...`, a path); the settings then name the model that it became.
    The fake engine needs no model on disk.
    """
    from model_registry.errors import InvalidName, InvalidReference, ModelNotFound
    from model_registry.registry import open_registry
    from server.cli.pull import follow_pull
    from server.cli.registry_access import PullOrder
    from server.cli.registry_access.direct import DirectRegistry
    from server.cli.registry_access.local_source import normalized

    settings = settings_from(**flags)
    if settings.engine == "fake":
        return settings
    with open_registry(settings.home) as registry:
        try:
            registry.resolve(settings.model)
            return settings
        except (ModelNotFound, InvalidName, InvalidReference) as error:
            if settings.offline:
                raise CommandFailed(
                    f"model {settings.model!r} is not here and `offline` is set; run `slmops pull` while online"
                ) from error
        pulled = follow_pull(DirectRegistry(registry), PullOrder(normalized(settings.model)))
    return settings_from(**flags | {"model": pulled["model"]})


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback needs an API key.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The default model: a name or a reference.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of the registry and the models.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, onnx, genai, foundry, or fake (answers without a model).")] = None,
    providers: Annotated[str | None, typer.Option(help="A policy, or execution providers in order: cuda,cpu.")] = None,
    memory_budget: Annotated[str | None, typer.Option(help="Memory of all models: 80%, or 4GiB.")] = None,
    max_loaded_models: Annotated[int | None, typer.Option(help="Most models loaded at a time.")] = None,
    keep_alive: Annotated[str | None, typer.Option(help="Time a model stays without requests: 10m; -1 for ever.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Workers per model.")] = None,
    num_slots: Annotated[int | None, typer.Option(help="Sequences decoded together, per worker.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads per worker; 0: a share of the cores.")] = None,
    context_length: Annotated[int | None, typer.Option(help="Cut of the model's context, in tokens.")] = None,
    max_waiting: Annotated[int | None, typer.Option(help="Answers queued per worker before 429.")] = None,
    max_token_gap_s: Annotated[float | None, typer.Option(help="Longest delay of running answers by a new prompt.")] = None,
    prefix_cache_bytes: Annotated[str | None, typer.Option(help="KV memory kept for prefix reuse, e.g. 512MiB.")] = None,
    request_timeout_s: Annotated[float | None, typer.Option(help="Longest time of one request.")] = None,
    shutdown_grace_s: Annotated[float | None, typer.Option(help="Time running answers get at shutdown.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    offline: Annotated[bool | None, typer.Option("--offline", help="Never download anything.")] = None,
) -> int:
    """Serve models over HTTP until interrupted. The default model is fetched first if it is missing."""
    settings = settings_with_model(**locals())

    from server.app import serve as serve_app

    return serve_app(settings)
