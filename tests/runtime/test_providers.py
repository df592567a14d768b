"""The reading of discoveries, of recorded machines and of their possible faults; and the failures of the child that queries."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from runtime.machine.discovery import Hardware, NvidiaGpu, PciDevice, PluginLibrary, RawDiscovery
from runtime.machine.execution_provider import HOST, KNOWN, DeviceKind
from runtime.machine.hardware import parse_nvidia_smi, read_hardware
from runtime.machine.provider_directory import ProviderDirectory
from runtime.machine.provider_reading import read_discovery
from runtime.protocol.messages import ProviderChoice
from tests.runtime.recorded_discoveries import NAMES, provider, providers_of, recorded

pytestmark = pytest.mark.api

USABLE = {
    "intel_laptop": ["cpu", "openvino", "openvino:1"],
    "mac": ["cpu", "webgpu"],
    "nvidia_desktop": ["cpu", "cuda"],
    "qualcomm_laptop": ["cpu", "qnn"],
    "ryzen_ai_laptop": ["cpu", "vitisai", "directml"],
    "server": ["cpu"],
    "server_with_plugins": ["cpu"],
}
UNUSABLE = {
    "intel_laptop": ["directml", "webgpu"],
    "mac": ["mlx", "coreml"],
    "nvidia_desktop": ["trt-rtx", "webgpu", "webgpu:1"],
    "qualcomm_laptop": ["directml", "webgpu"],
    "ryzen_ai_laptop": ["webgpu"],
    "server": [],
    "server_with_plugins": ["trt-rtx", "openvino", "webgpu"],
}


def labels(name: str, *, usable: bool) -> list[str]:
    found = [each for each in providers_of(name) if each.usable is usable]
    return [f"{each.short}:{each.device_index}" if each.device_index else each.short for each in found]


@pytest.mark.parametrize("name", NAMES)
def test_each_machine_has_its_providers(name: str) -> None:
    assert labels(name, usable=True) == USABLE[name]
    assert labels(name, usable=False) == UNUSABLE[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_says_how_it_was_made_and_survives_json(name: str) -> None:
    raw = recorded(name)
    assert raw.note.startswith(("Recorded on ", "Composed from public "))
    assert msgspec.json.decode(msgspec.json.encode(raw), type=RawDiscovery) == raw


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_usable_says_why_and_what_to_do(name: str) -> None:
    for each in providers_of(name):
        assert (each.why_not is None) is (each.remedy is None) is each.usable
        assert each.proven is (each.short == "cpu")


def test_an_npu_is_known_by_its_name_and_lives_in_the_hosts_memory() -> None:
    npu = provider(providers_of("intel_laptop"), "openvino")
    assert (npu.kind, npu.device, npu.memory) == (DeviceKind.NPU, "Intel(R) AI Boost", HOST)
    assert npu.versions == ("onnxruntime-ep-openvino 1.8.1", "driver 32.0.100.4724")
    assert npu.choice().library == npu.library
    assert npu.library is not None


def test_all_providers_of_one_gpu_share_its_memory() -> None:
    found = providers_of("nvidia_desktop")
    gpu = [provider(found, short) for short in ("cuda", "trt-rtx", "webgpu")]
    assert {(each.device, each.memory, each.memory_bytes) for each in gpu} == {("NVIDIA GeForce RTX 4090", "nvidia:0", 24564 << 20)}
    assert gpu[0].choice() == ProviderChoice(name="CUDAExecutionProvider", options={"device_id": "0"})


def test_two_gpus_that_are_alike_are_two() -> None:
    raw = recorded("nvidia_desktop")
    hardware = msgspec.structs.replace(
        raw.hardware,
        nvidia_gpus=raw.hardware.nvidia_gpus * 2,
        pci_devices=[raw.hardware.pci_devices[0], msgspec.structs.replace(raw.hardware.pci_devices[0], address="0000:02:00.0")],
    )
    found = read_discovery(msgspec.structs.replace(raw, hardware=hardware))
    assert [(each.device_index, each.memory) for each in found if each.short == "cuda"] == [(0, "nvidia:0"), (1, "nvidia:1")]


# ---- the first thing missing is named, with its remedy ----


def changed_desktop(**changes: object) -> RawDiscovery:
    return msgspec.structs.replace(recorded("nvidia_desktop"), **changes)


def without_software() -> RawDiscovery:
    names = ("onnxruntime", "onnxruntime-genai")
    return changed_desktop(
        available_providers=["CPUExecutionProvider"],
        ep_devices=[],
        genai_flags={"cuda": False},
        distributions={name: version for name, version in recorded("server").distributions.items() if name in names},
    )


def without_driver() -> RawDiscovery:
    raw = without_software()
    gpu, graphics = raw.hardware.pci_devices
    bare = [msgspec.structs.replace(gpu, driver=None), graphics]
    return msgspec.structs.replace(raw, hardware=msgspec.structs.replace(raw.hardware, pci_devices=bare, nvidia_gpus=[]))


OVERLAY = "pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.0 onnxruntime-genai-cuda==0.18.0"


@pytest.mark.parametrize(
    ("raw", "why_not", "remedy"),
    [
        (without_driver(), "no driver", "install NVIDIA's driver"),
        (without_software(), "not built with it", f"pip install 'slmops[cuda]' && {OVERLAY}"),
        (changed_desktop(genai_flags={"cuda": False}), "onnxruntime-genai was not built for it", OVERLAY),
        (changed_desktop(genai_error="ImportError: no"), "cannot be imported: ImportError: no", "pip install"),
        (changed_desktop(onnxruntime_error="ImportError: no"), "onnxruntime cannot be imported: ImportError: no", "pip install"),
        (changed_desktop(system="Darwin"), "exists for Linux and Windows only", "nothing to install"),
    ],
)
def test_cuda_says_the_first_thing_that_is_missing(raw: RawDiscovery, why_not: str, remedy: str) -> None:
    cuda = provider(read_discovery(raw), "cuda")
    assert not cuda.usable
    assert why_not in (cuda.why_not or "")
    assert remedy in (cuda.remedy or "")


def test_a_plugin_that_could_not_be_registered_says_so() -> None:
    broken = PluginLibrary(module="onnxruntime_ep_openvino", version="1.8.1", ep_name="OpenVINOExecutionProvider", error="Fail: x")
    raw = recorded("intel_laptop")
    listed = [each for each in raw.ep_devices if each.ep_name != "OpenVINOExecutionProvider"]
    intel = Hardware(
        cpu="x",
        cpu_flags=[],
        memory_bytes=1 << 34,
        pci_devices=[PciDevice(address="0000:00:0b.0", class_id=0x120000, vendor_id=0x8086, device_id=0x643E, driver="intel_vpu")],
    )
    found = read_discovery(msgspec.structs.replace(raw, plugins=[broken], ep_devices=listed, hardware=intel, system="Linux"))
    npu = provider(found, "openvino")
    assert npu.why_not == "its library could not be registered: Fail: x"
    assert "pip install --upgrade onnxruntime-ep-openvino" in (npu.remedy or "")


def test_a_device_that_its_plugin_does_not_offer_needs_a_newer_driver() -> None:
    raw = recorded("mac")
    found = read_discovery(msgspec.structs.replace(raw, ep_devices=[]))
    assert "update the device's driver" in (provider(found, "webgpu").remedy or "")


@pytest.mark.parametrize(
    ("class_id", "vendor_id", "device_id"),
    [
        (0x030000, 0x1A03, 0x2000),  # a management console's display
        (0x030000, 0x1AF4, 0x1050),  # a virtual display
        (0x118000, 0x8086, 0x7D03),  # Intel's temperature sensors share a class with AMD's NPU
    ],
)
def test_displays_that_compute_nothing_are_no_gpus(class_id: int, vendor_id: int, device_id: int) -> None:
    raw = recorded("server")
    other = PciDevice(address="0000:00:02.0", class_id=class_id, vendor_id=vendor_id, device_id=device_id, driver="x")
    hardware = msgspec.structs.replace(raw.hardware, pci_devices=[other])
    assert [each.short for each in read_discovery(msgspec.structs.replace(raw, hardware=hardware))] == ["cpu"]


def test_amds_npu_on_linux_is_shown_although_nothing_runs_it() -> None:
    raw = recorded("server")
    npu = PciDevice(address="0000:c5:00.1", class_id=0x118000, vendor_id=0x1022, device_id=0x17F0, driver="amdxdna")
    hardware = msgspec.structs.replace(raw.hardware, pci_devices=[npu])
    vitisai = provider(read_discovery(msgspec.structs.replace(raw, hardware=hardware)), "vitisai")
    assert vitisai.why_not == "its software exists for Windows only"


def test_a_kind_of_device_that_nobody_knows_yet_is_left_out() -> None:
    raw = recorded("qualcomm_laptop")
    new = [msgspec.structs.replace(raw.ep_devices[1], kind="fpga")]
    assert provider(read_discovery(msgspec.structs.replace(raw, ep_devices=new)), "qnn").device == "none"


def test_short_names_are_unique() -> None:
    assert len({known.short for known in KNOWN}) == len(KNOWN)


# ---- what the operating system lists ----


def test_linux_lists_devices_drivers_and_the_cpu(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/pci/devices/0000:00:0b.0"
    device.mkdir(parents=True)
    for name, value in {"class": "0x120000", "vendor": "0x8086", "device": "0x643e"}.items():
        (device / name).write_text(value + "\n")
    driver = tmp_path / "sys/bus/pci/drivers/intel_vpu"
    driver.mkdir(parents=True)
    (device / "driver").symlink_to(driver)
    network = tmp_path / "sys/bus/pci/devices/0000:00:1f.6"
    network.mkdir()
    for name, value in {"class": "0x020000", "vendor": "0x8086", "device": "0x550b"}.items():
        (network / name).write_text(value)
    (tmp_path / "dev/accel").mkdir(parents=True)
    (tmp_path / "dev/accel/accel0").touch()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 avx_vnni\n\nprocessor\t: 1\n")
    hardware = read_hardware(tmp_path)
    assert hardware.pci_devices == [
        PciDevice(address="0000:00:0b.0", class_id=0x120000, vendor_id=0x8086, device_id=0x643E, driver="intel_vpu")
    ]
    assert (hardware.accelerators, hardware.cpu, hardware.cpu_flags) == (["accel0"], "A CPU", ["avx2", "avx_vnni"])


def test_a_system_without_these_folders_lists_its_cpu(tmp_path: Path) -> None:
    hardware = read_hardware(tmp_path)
    assert hardware.cpu
    assert hardware.pci_devices == []


def test_nvidia_smis_line_is_read_and_its_complaints_are_not() -> None:
    gpu = NvidiaGpu(name="NVIDIA H100 80GB HBM3", memory_bytes=81559 << 20, driver="575.57.08", vendor_id=0x10DE, device_id=0x2330)
    assert parse_nvidia_smi("NVIDIA H100 80GB HBM3, 81559, 575.57.08, 0x233010DE") == gpu
    assert parse_nvidia_smi("NVIDIA-SMI has failed because it could not communicate with the driver") is None


# ---- the child ----


def requested_candidate(program: str, timeout_s: float = 20.0) -> tuple[list[str], str]:
    report = asyncio.run(ProviderDirectory((sys.executable, "-c", program), timeout_s).report())
    return [each.short for each in report.providers], report.problem or ""


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import time; time.sleep(600)", "did not end within 0.2 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
        ("raise SystemExit('the vendor is cross')", "ended with code 1 (the vendor is cross)"),
        ("print('hello')", "printed something else than its answer"),
        ("print('{}')", "printed something else than its answer"),
    ],
    ids=["hangs", "crashes", "fails", "rubbish", "incomplete"],
)
def test_a_child_that_gives_no_answer_leaves_the_cpu_and_a_reason(program: str, problem: str) -> None:
    shorts, expected_text = requested_candidate(program, timeout_s=0.2 if "600" in program else 20.0)
    assert shorts == ["cpu"]
    assert problem in expected_text
    assert "slmops doctor" in expected_text


def test_the_answer_is_kept_until_it_is_refreshed(tmp_path: Path) -> None:
    answers = tmp_path / "asked"
    raw = msgspec.json.encode(recorded("nvidia_desktop")).decode()
    program = f"import pathlib; pathlib.Path({str(answers)!r}).open('a').write('x'); print({raw!r})"

    async def send() -> list[int]:
        directory = ProviderDirectory((sys.executable, "-c", program))
        found = await asyncio.gather(*(directory.providers() for _ in range(5)))
        assert {len(each) for each in found} == {len(providers_of("nvidia_desktop"))}
        counts = [answers.stat().st_size]
        await directory.refresh()
        counts.append(answers.stat().st_size)
        await asyncio.gather(*(directory.refresh() for _ in range(8)))
        return [*counts, answers.stat().st_size]

    assert asyncio.run(send()) == [1, 2, 4], "those that come while a child runs wait for one more, not for one each"


def test_the_real_child_finds_this_machines_cpu_and_onnxruntime_stays_out_of_this_process() -> None:
    program = (
        "import asyncio, sys; from runtime.machine.provider_directory import ProviderDirectory\n"
        "report = asyncio.run(ProviderDirectory().report())\n"
        "assert report.problem is None, report.problem\n"
        "assert report.providers[0].name == 'CPUExecutionProvider' and report.providers[0].usable\n"
        "assert 'onnx' in report.providers[0].engines\n"
        "assert not {'onnxruntime', 'onnxruntime_genai'} & set(sys.modules)\n"
    )

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        return await process.wait()

    assert asyncio.run(run()) == 0
