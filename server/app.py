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
from jobs.service import JobService
from model_registry.database import Database
from model_registry.disk import who_may_enter
from model_registry.errors import RegistryError
from model_registry.keys import KeyStore
from runtime.machine.provider_directory import ProviderDirectory
from runtime.pool.local import LocalWorkers
from runtime.pool.model_pool import ModelPool
from server import logs
from server.admin.adapters import adapters_router
from server.admin.disk import disk_router
from server.admin.evaluations import evaluations_router, lineage_router
from server.admin.health import health_router, metrics_router
from server.admin.job_access import JobAccess
from server.admin.jobs import jobs_router
from server.admin.keys import keys_router
from server.admin.logs import logs_router
from server.admin.models import admin_router
from server.admin.pipelines import pipelines_router
from server.admin.providers import providers_router
from server.admin.registry.routers import registry_routers
from server.dialects.openai.chat import chat_router
from server.dialects.openai.completions import completions_router
from server.dialects.openai.errors import openai_errors
from server.dialects.openai.files import files_router
from server.dialects.openai.fine_tuning import fine_tuning_router
from server.dialects.openai.models import models_router
from server.dialects.openai.tokens import tokens_router
from server.dialects.openai.unavailable import unavailable_router
from server.http import errors
from server.http.access import guarded_routes
from server.http.authentication import Authenticator
from server.http.bodies import BodyLimit
from server.http.cors import Cors, Preflights
from server.http.observation import Observation
from server.http.paths import PathsAndMethods
from server.http.route_table import RouteTable
from server.http.security import Policy, Security, is_loopback
from server.inference.adapters import Adapters
from server.inference.gateway import Gateway
from server.inference.lifecycle import Lifecycle
from server.inference.load_plans import LoadPlans
from server.inference.model_control import ModelControl
from server.inference.observers import LogLine, Observers
from server.inference.readiness import Readiness
from server.inference.served_models import FakeModels, RegistryModels, ServedModels
from server.log_buffer import LogBuffer
from server.metrics.disk import DiskCollector
from server.metrics.event_loop_lag import measure_lag
from server.metrics.job_metrics import JobMetrics
from server.metrics.requests import RequestMetrics
from server.metrics.series import Metrics
from server.pages.api_description import DescribedApp
from server.pages.api_docs import api_docs_router
from server.pages.front_page import front_page_router
from server.settings.daemon import Settings
from server.storage.snapshots import ApiKeys
from server.storage.storage import Storage
from server.storage.threads import LOCK_WAIT_S
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
    jobs: JobService
    storage: Storage

    async def drain(self) -> None:
        """Refuses what is new, lets what runs finish within the grace period, ends the rest with an error."""
        self.lifecycle.drain()
        await asyncio.gather(self.jobs.close(), self.pool.close(grace_s=self.settings.shutdown_grace_s))
        if not await self.lifecycle.wait_idle(_FLUSH_S):
            _log.warning("clients cut off", extra={"fields": {"open_requests": self.lifecycle.num_open}})
        self.lifecycle.close()


def create_app(
    settings: Settings,
    *,
    database: Database | None = None,
    log_buffer: LogBuffer | None = None,
    pool: ModelPool | None = None,
    tasks: str = "jobs.tasks.kinds",
    runs_jobs: bool = True,
) -> FastAPI:
    """The gateway, for any ASGI server that runs its lifespan, at whose end the database is closed.

    database: of the home, instead of one that is built here.
    log_buffer: what `/admin/logs` reads; None: nothing. pool: instead of one with real workers.
    tasks: the module that knows the kinds of jobs. runs_jobs: whether to resume the jobs of the home.
    """
    lifecycle = Lifecycle()
    pool = pool or ModelPool(settings.pool_limits(), LocalWorkers(settings.patience()))
    metrics = Metrics(pool)
    pool.listeners.append(metrics.pool_event)
    storage = Storage(database or open_database(settings), serves_models=settings.engine != "fake", limits=settings.disk_limits())
    metrics.registry.register(DiskCollector(lambda: storage.disk_watch.newest, storage.disk.collected_bytes))
    models = _models(settings, storage)
    directory = ProviderDirectory()
    plans = LoadPlans(settings, directory, pool)
    gateway = Gateway(settings, models, pool, plans, Observers([RequestMetrics(metrics), LogLine()]))
    control, readiness = ModelControl(gateway, plans), Readiness(gateway, lifecycle)
    metrics.watch_readiness(lambda: readiness.why_not_ready() is None)
    jobs = _job_service(settings, storage, JobMetrics(metrics.registry), tasks)
    access = JobAccess(jobs, storage.files)
    parts = Parts(settings, lifecycle, pool, gateway, readiness, metrics, jobs, storage)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_NUM_THREADS, "slmops"))
        storage.start()
        _warn_of_home(storage.database)
        if runs_jobs:
            await jobs.start()
        warming = asyncio.create_task(readiness.warm_up())
        measuring = asyncio.create_task(measure_lag(metrics.event_loop_lag.observe))
        try:
            yield
        finally:
            lifecycle.drain()
            warming.cancel()
            measuring.cancel()
            await asyncio.wait([warming, measuring])
            await asyncio.gather(jobs.close(), pool.close(grace_s=0))
            await asyncio.to_thread(storage.close)

    app = DescribedApp(
        title="slmops",
        version=slmops_version(),
        description="Serves small language models on this machine through OpenAI's API.",
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,  # it and /docs are routes of our own
    )
    app.state.parts = parts
    routers = (
        chat_router(gateway),
        completions_router(gateway),
        models_router(gateway, control),
        tokens_router(gateway),
        files_router(storage.files, jobs),
        fine_tuning_router(gateway, jobs, storage.files),
        unavailable_router(),
        admin_router(gateway, control),
        lineage_router(gateway),
        evaluations_router(gateway, storage.registry, storage.evaluations),
        adapters_router(Adapters(models, control)),
        jobs_router(jobs, access),
        pipelines_router(jobs, access),
        *registry_routers(storage, pool, jobs, offline=settings.offline),
        keys_router(storage.keys),
        providers_router(directory),
        disk_router(storage.disk_watch),
        health_router(readiness),
        metrics_router(metrics, jobs),
        logs_router(log_buffer or LogBuffer()),
        front_page_router(),
        api_docs_router(app),
    )
    app.guarded = [route for router in routers for route in guarded_routes(router.routes)]
    for router in routers:
        app.include_router(router)
    errors.install(app)
    app.add_middleware(BodyLimit, max_body_bytes=int(settings.max_body_bytes), max_upload_bytes=int(settings.max_upload_bytes))
    policy, authenticator = Policy.of(settings), _authenticator(settings, storage.keys)
    app.add_middleware(Preflights)
    app.add_middleware(Security, policy=policy, authenticator=authenticator)
    routes = RouteTable(app.guarded)
    app.add_middleware(Observation, lifecycle=lifecycle, metrics=metrics, error_writer=openai_errors, route_of=routes.template_of)
    app.add_middleware(Cors, policy=policy, authenticator=authenticator)
    app.add_middleware(PathsAndMethods)  # added last, so outermost
    return app


def open_database(settings: Settings) -> Database:
    """Of the settings' home, with the patience of HTTP's clients. Opened when it is first needed."""
    return Database(settings.home, lock_timeout_s=LOCK_WAIT_S)


def why_refused(settings: Settings, keys: KeyStore) -> str | None:
    """Why these settings must not be served: beyond this machine, and without a key that opens it. None when they may."""
    if is_loopback(settings.host) or settings.api_key is not None:
        return None
    if any(key.is_usable(datetime.now(UTC)) for key in keys.all_keys()):
        return None
    return (
        f"refusing to listen on {settings.host} without an API key, because others on the network could use this server: "
        "create one by `slmops keys create --name NAME --scope admin`, set SLMOPS_API_KEY (or api_key in slmops.toml), or "
        "listen on 127.0.0.1"
    )


def serve(settings: Settings) -> int:
    """Serves until a signal. Returns the exit code: 0 after a drain, 1 when it cannot listen or has no home, 2 when it must not."""
    log_buffer = LogBuffer()
    logs.configure(settings.log_level, settings.log_format, log_buffer)
    with open_database(settings) as database:
        return _serve(settings, database, log_buffer)


def _serve(settings: Settings, database: Database, log_buffer: LogBuffer) -> int:
    from server.daemon import CannotListenError, Daemon, open_socket

    refusal = why_refused(settings, KeyStore(database))
    if refusal is not None:
        return _complain(refusal, _MISUSED)
    try:
        listener = open_socket(settings.host, settings.port)
    except CannotListenError as error:
        return _complain(str(error), _FAILED)
    with listener:
        try:
            app = create_app(settings, database=database, log_buffer=log_buffer)
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


def _job_service(settings: Settings, storage: Storage, metrics: JobMetrics, tasks: str) -> JobService:
    def on_change(job: Job) -> None:
        metrics.changed(job)
        if job.status.is_final:  # it may have published
            storage.look_soon()

    jobs = JobService(
        storage.jobs,
        settings.jobs.limits(offline=settings.offline, disk=settings.disk_limits()),
        tasks=tasks,
        file_of=lambda id_: str(storage.files.content_of(id_)),
        permissions=settings.jobs.permissions({name: table.source() for name, table in settings.endpoints.items()}),
        on_change=on_change,
        writes=storage.writes,
        room=storage.require_room_for_job,
    )
    metrics.watch(jobs)
    return jobs


def _models(settings: Settings, storage: Storage) -> ServedModels:
    """The models that requests may name. The fake engine's are not the registry's."""
    if settings.engine == "fake":
        return FakeModels([settings.model, *settings.models])
    return RegistryModels(storage.registry)


def _warn_of_home(database: Database) -> None:
    if database.why_read_only is not None:
        fields = {"why": database.why_read_only.message}
        _log.warning("nothing can be written to the home folder; serving what is there", extra={"fields": fields})
