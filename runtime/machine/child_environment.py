"""The environment of processes that the daemon starts: what they need of its own by a list, and nothing else.

A list of what to leave out would miss the next secret. What a process works with that is secret comes by its pipe.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
_NAMES = frozenset(
    {
        # the system, its users and their folders
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "GLIBC_TUNABLES"),
        *("SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA"),
        *("PROGRAMFILES", "PROGRAMFILES(X86)", "PROGRAMW6432", "NUMBER_OF_PROCESSORS"),
        # Python
        *("PYTHONPATH", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONWARNINGS", "PYTHONOPTIMIZE"),
        *("PYTHONFAULTHANDLER", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONNOUSERSITE", "PYTHONUSERBASE"),
        # caches of libraries, and what they must not do
        *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
        *("HF_HUB_DISABLE_TELEMETRY", "OLIVE_DISABLE_TELEMETRY", "DO_NOT_TRACK", "RUST_BACKTRACE"),
        *("SLMOPS_FOUNDRY_CACHE", "SLMOPS_FOUNDRY_CATALOG_URL", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
)
_PREFIXES = (
    *("LC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "VECLIB_", "NUMEXPR_", "ATEN_", "ONEDNN_", "DNNL_", "TBB_"),
    *("TORCH_", "PYTORCH_", "TOKENIZERS_", "RAYON_", "ORT_", "ONNXRUNTIME_", "OPENVINO_", "OV_", "QNN_", "ADSP_", "MALLOC_"),
    *("MIMALLOC_", "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "ROCM_", "ROCR_", "HSA_", "HIP_", "MIOPEN_", "GPU_", "SYCL_"),
    *("ONEAPI_", "ZE_", "VK_", "MESA_", "PROCESSOR_"),
)
_SECRET = frozenset({"KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS", "AUTH"})
_NETWORK = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"})
_FETCHING = frozenset(
    {"HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SLMOPS_INDEX_URL", "PIP_INDEX_URL", "UV_INDEX_URL"},
)
_SET = {"PYTHONUNBUFFERED": "1", "USE_HUB_KERNELS": "NO"}  # transformers would look for compiled code on the hub


def child_environment(*, network: bool = False, fetches: bool = False) -> dict[str, str]:
    """network: for a process that calls other servers; fetches: for one that downloads models, too, with the hub's token."""
    kept = allowed(os.environ, network=network or fetches, fetches=fetches)
    paths = [_ROOT, *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | _SET


def allowed(variables: Mapping[str, str], *, network: bool = False, fetches: bool = False) -> dict[str, str]:
    """The variables that such a process inherits. Pure. Names are compared without case, since proxies are written in both."""
    names = _NAMES | (_NETWORK if network else frozenset()) | (_FETCHING if fetches else frozenset())
    return {name: value for name, value in variables.items() if name.upper() in names or _is_plain(name.upper())}


def _is_plain(name: str) -> bool:
    """Whether a library's own variables begin so, and it does not sound like a secret (`NVIDIA_API_KEY`)."""
    return name.startswith(_PREFIXES) and not _SECRET & set(name.split("_"))
