"""OpenAI's files and fine-tuning jobs with its own client: a tiny real model is tuned, found, chatted with and listed."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from server.dialects.openai.tuning_jobs import csv_of
from server.inference.fine_tuned_names import as_registered, registered_name, registered_of, written_name
from server.settings.daemon import Settings
from tests.doubles.kept_homes import KeptHomes
from tests.doubles.live_server import LiveServer
from tests.doubles.tiny_gguf import Tiny

pytestmark = pytest.mark.train

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATIENCE_S = 240  # against hanging: jobs get what others leave of the processor


def rows(count: int, answer: str = "a cat") -> bytes:
    made = [{"messages": [{"role": "user", "content": f"the {n}"}, {"role": "assistant", "content": answer}]} for n in range(count)]
    return "\n".join(map(json.dumps, made)).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, kept_homes: KeptHomes) -> Iterator[LiveServer]:
    tiny = Tiny(context=512, metadata={"tokenizer.chat_template": TEMPLATE})
    home = kept_homes.tiny(tmp_path_factory.mktemp("tuning") / "home", tiny=tiny)
    settings = Settings(home=home, port=0, model="tiny", num_slots=2, jobs={"threads": 1}, max_upload_bytes=1 << 20)
    with LiveServer(settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def upload(client: openai.OpenAI, content: bytes, name: str = "train.jsonl") -> str:
    return client.files.create(file=(name, io.BytesIO(content)), purpose="fine-tune").id


def ended(client: openai.OpenAI, id_: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while (job := client.fine_tuning.jobs.retrieve(id_)).status not in ("succeeded", "failed", "cancelled"):
        assert time.monotonic() < deadline, job
        time.sleep(0.1)  # the API has no way to wait
    return job


def test_a_model_is_tuned_and_chatted_with_at_once(client: openai.OpenAI, server: LiveServer) -> None:
    training, validation = upload(client, rows(8)), upload(client, rows(2, "in in"), "valid.jsonl")
    job = client.fine_tuning.jobs.create(
        model="tiny",
        training_file=training,
        validation_file=validation,
        suffix="Support!",
        seed=7,
        metadata={"owner": "me"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}}},
    )
    assert (job.status in ("queued", "running"), job.seed, job.training_file, job.model) == (True, 7, training, "tiny")
    assert job.fine_tuned_model is None
    done = ended(client, job.id)
    assert (done.status, done.error) == ("succeeded", None)
    assert done.trained_tokens > 0
    assert done.method.supervised.hyperparameters.n_epochs == 2
    name = done.fine_tuned_model
    assert name.startswith("ft:tiny:local:support:")
    answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "the 1"}], max_tokens=4)
    assert answer.model == name
    assert name in [model.id for model in client.models.list()]
    assert client.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="Did you mean"):
        client.models.retrieve(name.replace("ft:tiny:", "ft:other:"))

    metrics = client.files.content(done.result_files[0]).text.splitlines()
    assert metrics[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert [line.partition(",")[0] for line in metrics[1:]] == ["1", "2", "3", "4"]
    assert client.fine_tuning.jobs.retrieve(job.id).result_files == done.result_files
    events = client.fine_tuning.jobs.list_events(job.id, limit=3)
    assert events.has_more
    assert events.data[0].message == f"New fine-tuned model created: {name}. The job has successfully completed"
    reported = {event.message: event for event in client.fine_tuning.jobs.list_events(job.id)}
    assert f"Created fine-tuning job: {job.id}" in reported
    step = next(event for message, event in reported.items() if message.startswith("Step 1/4: training loss="))
    assert (step.type, step.data["step"], step.data["total_steps"]) == ("metrics", 1, 4)
    assert any(": validation loss=" in message for message in reported)
    assert len(list(client.fine_tuning.jobs.list_events(job.id, limit=3))) == len(list(client.fine_tuning.jobs.list_events(job.id)))
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert (checkpoint.step_number, checkpoint.fine_tuning_job_id) == (4, job.id)
    assert checkpoint.metrics.train_loss
    assert checkpoint.fine_tuned_model_checkpoint == name, "the last one is the tuned model"
    with pytest.raises(openai.NotFoundError, match="Checkpoints of a tuning are not served"):
        client.models.retrieve(f"{name}:ckpt-step-2")

    with httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE_S) as http:
        assert http.get(f"/admin/models/{name}/lineage").json()["children"][0]["asked"]
        plan = http.post("/admin/job-plans", json={"kind": "benchmark", "params": {"model": name}}).json()
        assert plan["summary"][0].startswith("Measures ft-support-")
    with pytest.raises(openai.BadRequestError, match="slmops rm tiny"):
        client.models.delete("tiny")
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.models.delete(name)


def test_jobs_are_paused_resumed_cancelled_and_filtered(client: openai.OpenAI) -> None:
    training = upload(client, rows(16))
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=training, hyperparameters={"n_epochs": 50, "batch_size": 1}, metadata={"run": "long"}
    )
    deadline = time.monotonic() + PATIENCE_S
    while not any(event.type == "metrics" for event in client.fine_tuning.jobs.list_events(job.id)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    with pytest.raises(openai.ConflictError, match=f"reads the file {training}, and is paused"):
        client.files.delete(training)
    assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "running")
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    listed = client.fine_tuning.jobs.list(metadata={"run": "long"}, limit=1)
    assert [each.id for each in listed] == [job.id]
    assert not client.fine_tuning.jobs.list(metadata={"run": "none"}).data
    assert job.id not in [each.id for each in client.fine_tuning.jobs.list(extra_query={"metadata": "null"})]
    with pytest.raises(openai.ConflictError, match=f"The job {job.id} is cancelled"):
        client.fine_tuning.jobs.cancel(job.id)
    assert client.files.delete(training).deleted
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-none")


@pytest.mark.parametrize("more", [{}, {"objective": "supervised", "epochs": 1, "batch_size": 1, "learning_rate": "auto"}])
def test_jobs_of_the_admin_api_are_left_out(client: openai.OpenAI, server: LiveServer, more: dict[str, Any]) -> None:
    before = [each.id for each in client.fine_tuning.jobs.list()]
    params = {"model": "tiny", "data": upload(client, rows(2)), "output": "mine", **more}
    body = {"kind": "finetune", "params": params}
    made = httpx.post(f"{server.url}/admin/jobs", json=body, trust_env=False, timeout=PATIENCE_S).raise_for_status().json()["id"]
    assert [each.id for each in client.fine_tuning.jobs.list()] == before
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(made.replace("job-", "ftjob-"))
    httpx.post(f"{server.url}/admin/jobs/{made}/cancel", trust_env=False, timeout=PATIENCE_S)


def test_preferences(client: openai.OpenAI) -> None:
    made = [
        {
            "input": {"messages": [{"role": "user", "content": f"the {n}"}]},
            "preferred_output": [{"role": "assistant", "content": "a cat"}],
            "non_preferred_output": [{"role": "assistant", "content": "in"}],
        }
        for n in range(4)
    ]
    training = upload(client, "\n".join(map(json.dumps, made)).encode())
    method = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 1, "beta": 0.2}}}
    done = ended(client, client.fine_tuning.jobs.create(model="tiny", training_file=training, method=method).id)  # type: ignore[arg-type]
    assert (done.status, done.method.type, done.method.dpo.hyperparameters.beta) == ("succeeded", "dpo", 0.2)
    assert done.fine_tuned_model.startswith("ft:tiny:local::")


def test_duplicates_and_leaks_are_left_out_and_reported(client: openai.OpenAI) -> None:
    whole = rows(4)
    training = upload(client, b"\xef\xbb\xbf" + whole + b"\n" + b"\n".join(whole.splitlines()[:3]))
    validation = upload(client, rows(1) + b"\n" + rows(1, "a dog"), "valid.jsonl")
    requested = {"n_epochs": 1, "batch_size": 4}
    job = client.fine_tuning.jobs.create(
        model="tiny", training_file=training, validation_file=validation, hyperparameters=requested
    )
    deadline, reported = time.monotonic() + PATIENCE_S, []
    while len(reported) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)  # the API has no way to wait
        reported = [event.message for event in client.fine_tuning.jobs.list_events(job.id) if "left out" in event.message]
    client.fine_tuning.jobs.cancel(job.id)
    assert sorted(reported) == [
        "train.jsonl: 3 lines (5, 6, 7) left out as duplicates of earlier ones.",
        "valid.jsonl: 1 line (1) left out, which are training data: validation must be new to the model.",
    ]


def test_bad_data_is_reported_with_its_line_and_no_job_is_made(client: openai.OpenAI) -> None:
    before = len(client.fine_tuning.jobs.list().data)
    training = upload(client, rows(2) + b'\n{"messages": []}')
    with pytest.raises(openai.BadRequestError, match=f"{training}:3: Its messages") as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file=training)
    assert caught.value.param == "training_file"
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(model="tiny", training_file="file-none")
    assert (caught.value.code, caught.value.param) == ("file_not_found", "training_file")
    with pytest.raises(openai.NotFoundError) as missing:
        client.fine_tuning.jobs.create(model="nothing", training_file=training)
    assert missing.value.code == "model_not_found"
    wandb = {"type": "wandb", "wandb": {"project": "x"}}
    again = {"validation_file": training}
    for wrong in ({"suffix": "x" * 65}, {"integrations": [wandb]}, again, {"method": {"type": "reinforcement"}}, {"seed": -1}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.fine_tuning.jobs.create(model="tiny", training_file=training, extra_body=wrong)
        assert caught.value.param.split(".")[0] in wrong
    assert len(client.fine_tuning.jobs.list().data) == before


def test_files_are_listed_read_and_deleted(client: openai.OpenAI, server: LiveServer) -> None:
    ids = [upload(client, rows(n), f"../{n} ü.jsonl") for n in (1, 2, 3)]
    described = client.files.retrieve(ids[0])
    assert (described.filename, described.bytes, described.status) == ("1 ü.jsonl", len(rows(1)), "processed")
    assert client.files.content(ids[1]).read() == rows(2)
    page = client.files.list(limit=2, purpose="fine-tune")
    assert [each.id for each in page.data] == ids[:0:-1]
    assert [each.id for each in page][:3] == ids[::-1]
    assert client.files.delete(ids[0]).deleted
    with pytest.raises(openai.NotFoundError, match="no file"):
        client.files.retrieve(ids[0])
    assert client.files.list(purpose="evals").data == []
    kept = client.files.create(file=("a.jsonl", b"x"), purpose="evals", expires_after={"anchor": "created_at", "seconds": 3600})
    assert kept.expires_at == kept.created_at + 3600
    training = client.files.create(file=("a.jsonl", b"x"), purpose="user_data").id
    with pytest.raises(openai.BadRequestError, match="purpose fine-tune"):
        client.fine_tuning.jobs.create(model="tiny", training_file=training)


def test_hyperparameters_in_two_places_are_refused_by_name(server: LiveServer) -> None:
    requested = {"model": "tiny", "training_file": "file-x", "method": {"type": "supervised"}, "hyperparameters": {"n_epochs": 2}}
    answer = httpx.post(f"{server.url}/v1/fine_tuning/jobs", json=requested, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "hyperparameters")


def test_uploads_that_cannot_be_kept_are_refused(client: openai.OpenAI, server: LiveServer) -> None:
    before = len(list(client.files.list()))
    with pytest.raises(openai.BadRequestError, match="empty"):
        upload(client, b"")
    with pytest.raises(openai.APIStatusError) as caught:
        upload(client, b"x" * (2 << 20))
    assert caught.value.status_code == 413
    for data in ({"purpose": "vision"}, {}, {"purpose": "evals", "expires_after[seconds]": "7200"}):
        answer = httpx.post(f"{server.url}/v1/files", data=data, files={"file": ("a", b"x")}, trust_env=False)
        assert answer.status_code == 400, answer.text
    assert httpx.post(f"{server.url}/v1/files", data={"purpose": "evals"}, trust_env=False).status_code == 400
    broken = httpx.post(f"{server.url}/v1/files", content=b"--x", headers={"Content-Type": "multipart/form-data"}, trust_env=False)
    assert (broken.status_code, broken.json()["error"]["param"]) == (400, "body")
    assert len(list(client.files.list())) == before


def test_names_of_tuned_models_go_both_ways() -> None:
    for suffix in ("support", "my-suffix.2", None):
        registered = registered_name(suffix, "0123abcd")
        written = written_name("qwen2.5-0.5b", registered)
        assert written == f"ft:qwen2.5-0.5b:local:{suffix or ''}:0123abcd"
        assert registered_of(written) == registered
    assert written_name("base", "ft-support") is None
    assert registered_of("ft:base:other:x:0123abcd") is None
    assert registered_of("base:1") is None
    requested = {"target": "ft:base:local:x:0123abcd", "data": ["file-1", 1]}
    assert as_registered(requested) == {"target": "ft-x-0123abcd", "data": ["file-1", 1]}


def test_the_result_file_has_a_line_per_step(tmp_path: Path) -> None:
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "mean_token_accuracy": 0.5}, {"step": 2, "eval_loss": 1.5}]
    assert csv_of(history).decode().splitlines()[1:] == ["1,2.0,,,", "2,1.0,0.5,1.5,"]
