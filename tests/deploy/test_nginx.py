"""deploy/nginx/slmops.conf in a real nginx in front of a real daemon: TLS, streams, uploads, refusals in JSON, pages."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.doubles.daemon_process import free_port, running_daemon

SITE = Path(__file__).parents[2] / "deploy/nginx/slmops.conf"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
NAME = "llm.example.org"
KEY = "slm_of_this_test"
MANY_BYTES = 10 << 20  # more than the site takes anywhere but for files
pytestmark = pytest.mark.skipif(
    NGINX is None or shutil.which("openssl") is None,
    reason="needs nginx and openssl: apt-get install nginx-light openssl",
)
_MAIN = """
{user}daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def make_certificate(folder: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    names = ["-addext", f"subjectAltName=DNS:{NAME},DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)


def configure(folder: Path, upstream: str, port: int) -> Path:
    """The site as it is shipped, with this folder's certificate, free ports, and the daemon's address."""
    site = SITE.read_text().replace("/etc/ssl/slmops", str(folder)).replace("127.0.0.1:8000", upstream)
    lines = [line for line in site.splitlines() if "listen [::]" not in line]
    text = (
        "\n".join(lines).replace("listen 80;", f"listen 127.0.0.1:{free_port()};").replace("listen 443", f"listen 127.0.0.1:{port}")
    )
    (folder / "site.conf").write_text(text)
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user="user root; " if os.geteuid() == 0 else ""))
    return folder / "nginx.conf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nginx")
    make_certificate(folder)
    return folder


@pytest.fixture(scope="module")
def proxy(folder: Path) -> Iterator[str]:
    """The proxy's URL; the daemon behind it has a key."""
    assert NGINX is not None
    port = free_port()
    with running_daemon(folder / "home", "--engine", "fake", variables={"SLMOPS_API_KEY": KEY}) as daemon:
        configuration = configure(folder, daemon.url.removeprefix("http://"), port)
        process = subprocess.Popen([NGINX, "-c", str(configuration), "-p", str(folder), "-e", str(folder / "error.log")])
        try:
            wait_until_listening(port, process, folder / "error.log")
            yield f"https://localhost:{port}"
        finally:
            process.terminate()
            process.wait(20)


def wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}", trust_env=False)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def http(folder: Path, proxy: str) -> Iterator[httpx.Client]:
    """A client that knows the proxy's certificate and has the key."""
    trusted = ssl.create_default_context(cafile=folder / "fullchain.pem")
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=proxy, verify=trusted, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def test_nginx_accepts_the_site(folder: Path) -> None:
    assert NGINX is not None
    configuration = configure(folder, "127.0.0.1:8000", free_port())
    run = subprocess.run(
        [NGINX, "-t", "-c", str(configuration), "-p", str(folder), "-e", str(folder / "error.log")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "[warn]" not in run.stderr


def test_each_part_of_a_stream_passes_as_it_comes(http: httpx.Client) -> None:
    """The model waits longer between two parts than a proxy that collects them could."""
    body = {"messages": [{"role": "user", "content": "[[count: 20]][[delay: 0.1]]"}], "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        came = [time.monotonic() for line in response.iter_lines() if line.startswith("data: {")]
    assert response.status_code == 200
    assert came[-1] - came[0] > 0.8


def test_the_openai_client_works_with_its_own_certificate(http: httpx.Client, proxy: str) -> None:
    client = openai.OpenAI(base_url=f"{proxy}/v1", api_key=KEY, http_client=http, max_retries=0)  # the fixture closes it
    answer = client.chat.completions.create(model="", messages=[{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content


def test_without_a_key_nobody_gets_through(http: httpx.Client) -> None:
    assert http.get("/v1/models", headers={"Authorization": ""}).status_code == 401


def test_large_files_pass_and_other_large_bodies_do_not(http: httpx.Client) -> None:
    question, answered = {"role": "user", "content": "a" * 1000}, {"role": "assistant", "content": "b"}
    line = json.dumps({"messages": [question, answered]})
    data = (line + "\n") * (MANY_BYTES // len(line))
    answer = http.post("/v1/files", files={"file": ("train.jsonl", data)}, data={"purpose": "fine-tune"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["bytes"] == len(data)
    assert http.post("/v1/chat/completions", content=data).status_code == 413


def test_a_body_that_the_daemon_refuses_is_refused_in_its_words(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", content=b"[" + b" " * (8 << 20) + b"]")
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


def test_pages_of_the_proxy_are_the_daemons_own_and_others_are_refused(http: httpx.Client, proxy: str) -> None:
    own = http.delete("/v1/models/nothing", headers={"Origin": proxy})
    foreign = http.delete("/v1/models/nothing", headers={"Origin": "https://elsewhere.example"})
    assert own.status_code == 404
    assert own.headers["access-control-allow-origin"] == proxy
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_an_unreachable_daemon_is_reported_in_json(folder: Path) -> None:
    assert NGINX is not None
    alone = folder / "alone"
    alone.mkdir()
    for name in ("key.pem", "fullchain.pem"):
        shutil.copy(folder / name, alone)
    port = free_port()
    configuration = configure(alone, f"127.0.0.1:{free_port()}", port)
    process = subprocess.Popen([NGINX, "-c", str(configuration), "-p", str(alone), "-e", str(alone / "error.log")])
    try:
        wait_until_listening(port, process, alone / "error.log")
        trusted = ssl.create_default_context(cafile=folder / "fullchain.pem")
        answer = httpx.get(f"https://localhost:{port}/v1/models", verify=trusted, trust_env=False)
    finally:
        process.terminate()
        process.wait(20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unreachable")
    assert int(answer.headers["retry-after"]) > 0


def test_too_many_requests_of_one_address_are_refused_in_json(http: httpx.Client) -> None:
    """Last, for what it uses up."""
    answers = [http.get("/health") for _ in range(80)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused[0].headers["retry-after"]) > 0
