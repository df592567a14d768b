"""The composition root, where settings become a registry, a pool, a gateway, layers and routes; and `serve`."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import FastAPI

from jobs.job import Job
from jobs.job_queue import JobQueue
from model_registry.disk import who_may_enter
from model_registry.errors import RegistryError
from model_registry.keys import KeyStore
from model_registry.uploads import Uploads
from runtime.machine.provider_directory import ProviderDirectory
from runtime.pool.model_pool import ModelPool
from server import errors, logs
from server.access import check_declarations, requires
from server.adapters import Adapters
from server.api_keys import ApiKeys
from server.authenticator import Authenticator
from server.body_limit import BodyLimit
from server.cors import Cors, Preflights
from server.gateway import Gateway
from server.http_paths import PathsAndMethods
from server.inference.log_line import LogLine
from server.inference.model_control import ModelControl
from server.inference.observers import Observers
from server.inference.readiness import Readiness
from server.job_access import JobAccess
from server.job_metrics import JobMetrics
from server.lifecycle import Lifecycle
from server.load_plans import LoadPlans
from server.metrics import Metrics
from server.observation import Observation
from server.openai.chat import chat_router
from server.openai.completions import completions_router
from server.openai.errors import openai_errors
from server.openai.files import files_router
from server.openai.fine_tuning import fine_tuning_router
from server.openai.models import models_router
from server.openai.tokens import tokens_router
from server.openai.unavailable import unavailable_router
from server.registry_access import LOCK_WAIT_S, RegistryAccess
from server.request_metrics import RequestMetrics
from server.routes.adapters import adapters_router
from server.routes.admin import admin_router
from server.routes.evaluations import evaluations_router
from server.routes.health import health_router
from server.routes.jobs import jobs_router
from server.routes.keys import keys_router
from server.routes.lineage import lineage_router
from server.routes.metrics import metrics_router
from server.routes.pipelines import pipelines_router
from server.routes.providers import providers_router
from server.security import Policy, Security, is_loopback
from server.served_models import FakeModels, RegistryModels, ServedModels
from server.settings import Settings
from server.version import slmops_version

_FLUSH_S = 2.0  # what ended streams get to reach their clients
_NUM_THREADS = 32  # for calls that wait for the disk: some may wait for a lock, and must not hold up the others
_FAILED = 1
_MISUSED = 2
_log = logging.getLogger("slmops.app")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an app is made of, as `app.state.parts`."""

    settings: Settings
    lifecycle: Lifecycle
    pool: ModelPool
    gateway: Gateway
    readiness: Readiness
    metrics: Metrics
    jobs: JobQueue
    keys: ApiKeys

    async def drain(self) -> None:
        """Refuses what is new, lets what runs finish within the grace period, ends the rest with an error."""
        self.lifecycle.drain()
        await asyncio.gather(self.jobs.close(), self.pool.close(grace_s=self.settings.shutdown_grace_s))
        if not await self.lifecycle.wait_idle(_FLUSH_S):
            _log.warning("clients cut off", extra={"fields": {"open_requests": self.lifecycle.num_open}})
        self.lifecycle.close()


def create_app(
    settings: Settings, *, pool: ModelPool | None = None, tasks: str = "jobs.tasks.kinds", runs_jobs: bool = True
) -> FastAPI:
    """The gateway, for any ASGI server that runs its lifespan. pool: instead of one with real workers.

    tasks: the module that knows the kinds of jobs. runs_jobs: whether to take up the jobs that are there.
    """
    lifecycle = Lifecycle()
    pool = pool or ModelPool(settings.pool_limits())
    metrics = Metrics(pool)
    pool.listeners.append(metrics.pool_event)
    models, registry = _open_models(settings)
    directory = ProviderDirectory()
    plans = LoadPlans(settings, directory, pool)
    gateway = Gateway(settings, models, pool, plans, Observers([RequestMetrics(metrics), LogLine()]))
    control, readiness = ModelControl(gateway, plans), Readiness(gateway, lifecycle)
    job_metrics = JobMetrics(metrics.registry)
    limits = settings.jobs.limits(offline=settings.offline)
    uploads = Uploads(settings.home, lock_timeout_s=LOCK_WAIT_S)

    def on_change(job: Job) -> None:
        job_metrics.changed(job)
        if registry is not None and job.status.is_final:  # it may have published
            registry.look_soon()

    jobs = JobQueue(
        settings.home,
        limits,
        tasks=tasks,
        file_of=lambda id_: str(uploads.get(id_).path),
        permissions=settings.jobs.permissions({name: table.source() for name, table in settings.endpoints.items()}),
        on_change=on_change,
    )
    job_metrics.watch(jobs)
    access = JobAccess(jobs, uploads)
    keys = ApiKeys(settings.home)
    parts = Parts(settings, lifecycle, pool, gateway, readiness, metrics, jobs, keys)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_NUM_THREADS, "slmops"))
        if registry is not None:
            registry.start()
            _warn_of_home(registry)
        if runs_jobs:
            await jobs.start()
        background = [asyncio.create_task(readiness.warm_up()), asyncio.create_task(keys.watch())]
        try:
            yield
        finally:
            lifecycle.drain()
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await asyncio.gather(jobs.close(), pool.close(grace_s=0), keys.close())
            if registry is not None:
                await asyncio.to_thread(registry.close)

    app = FastAPI(
        title="slmops",
        version=slmops_version(),
        description="Serves small language models on this machine through OpenAI's API.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for route in app.routes:  # FastAPI's own, of the API's description
        requires(changes_state=False)(route.endpoint)  # type: ignore[attr-defined]
    for router in (
        chat_router(gateway),
        completions_router(gateway),
        models_router(gateway, control),
        tokens_router(gateway),
        files_router(uploads, jobs),
        fine_tuning_router(gateway, jobs, uploads),
        unavailable_router(),
        admin_router(gateway, control),
        lineage_router(gateway),
        evaluations_router(gateway, settings.home),
        adapters_router(Adapters(models, control)),
        jobs_router(jobs, access),
        pipelines_router(jobs, access),
        keys_router(keys),
        providers_router(directory),
        health_router(readiness),
        metrics_router(metrics, jobs),
    ):
        check_declarations(router.routes)
        app.include_router(router)
    errors.install(app)
    app.add_middleware(BodyLimit, max_body_bytes=int(settings.max_body_bytes), max_upload_bytes=int(settings.max_upload_bytes))
    policy, authenticator = Policy.of(settings), _authenticator(settings, keys)
    app.add_middleware(Preflights)
    app.add_middleware(Security, policy=policy, authenticator=authenticator)
    app.add_middleware(Observation, lifecycle=lifecycle, metrics=metrics, error_writer=openai_errors)
    app.add_middleware(Cors, policy=policy, authenticator=authenticator)
    app.add_middleware(PathsAndMethods)  # added last, so outermost
    return app


def why_refused(settings: Settings) -> str | None:
    """Why these settings must not be served: beyond this machine, and without a key that opens it. None when they may."""
    if is_loopback(settings.host) or settings.api_key is not None:
        return None
    with KeyStore(settings.home) as store:
        if any(key.is_usable(datetime.now(UTC)) for key in store.all_keys()):
            return None
    return (
        f"refusing to listen on {settings.host} without an API key, because others on the network could use this server: "
        "create one by `slmops keys create --name NAME --scope admin`, set SLMOPS_API_KEY (or api_key in slmops.toml), or "
        "listen on 127.0.0.1"
    )


def serve(settings: Settings) -> int:
    """Serves until a signal. Returns the exit code: 0 after a drain, 1 when it cannot listen or has no home, 2 when it must not."""
    from server.daemon import CannotListenError, Daemon, open_socket

    logs.configure(settings.log_level, settings.log_format)
    refusal = why_refused(settings)
    if refusal is not None:
        return _complain(refusal, _MISUSED)
    try:
        listener = open_socket(settings.host, settings.port)
    except CannotListenError as error:
        return _complain(str(error), _FAILED)
    with listener:
        try:
            app = create_app(settings)
        except RegistryError as error:
            return _complain(error.message, _FAILED)
        if (mode := who_may_enter(settings.home)) is not None:
            fields = {"home": str(settings.home), "permissions": mode, "remedy": f"chmod 700 {settings.home}"}
            _log.warning("other users of this machine may enter the home folder", extra={"fields": fields})
        parts: Parts = app.state.parts
        gc.freeze()  # what is there from the start is not searched again while a large body is read
        Daemon(app, settings, parts.drain).run(sockets=[listener])
    return 0


def _complain(message: str, exit_code: int) -> int:
    sys.stderr.write(f"slmops: {message}\n")
    return exit_code


def _authenticator(settings: Settings, keys: ApiKeys) -> Authenticator:
    api_key = settings.api_key.get_secret_value() if settings.api_key else None
    return Authenticator(api_key, keys.known, is_local=is_loopback(settings.host))


def _open_models(settings: Settings) -> tuple[ServedModels, RegistryAccess | None]:
    """The models that requests may name, and what they are read from, which the fake engine's are not."""
    if settings.engine == "fake":
        return FakeModels([settings.model, *settings.models]), None
    from model_registry.registry import Registry

    access = RegistryAccess(Registry(settings.home, lock_timeout_s=LOCK_WAIT_S))
    return RegistryModels(access), access


def _warn_of_home(access: RegistryAccess) -> None:
    if access.why_read_only is not None:
        fields = {"why": access.why_read_only}
        _log.warning("nothing can be written to the home folder; serving what is there", extra={"fields": fields})
