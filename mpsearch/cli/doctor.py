"""`mpsearch doctor`: what this machine can do, and what is missing."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, final

from rich.text import Text

from mpsearch.cli.options import CacheFolder, Json
from mpsearch.cli.session import session
from mpsearch.cli.shown import stacked, table_of
from mpsearch.cli.words import size
from mpsearch.core.cache import Cache, default_cache_folder
from mpsearch.core.machine import installed_versions, this_processor
from mpsearch.errors import MissingPackageError, UnsupportedFeatureError
from mpsearch.worker.sandbox.probe import layers_that_hold, tries_refused

# Import name, name on the package index, what it is for, the extra that installs it.
_PACKAGES: Final = (
    ("torch", "torch", "measuring a model", "search"),
    ("onnx", "onnx", "writing a plan's model", "search"),
    ("onnxscript", "onnxscript", "reading a model's operators", "search"),
    ("openvino", "openvino", "running and timing plans", "search"),
    ("safetensors", "safetensors", "reading model folders", "search"),
    ("transformers", "transformers", "reading model folders", "search"),
    ("tokenizers", "tokenizers", "reading text", "search"),
    ("ml_dtypes", "ml_dtypes", "narrow number formats", "search"),
    ("jinja2", "jinja2", "writing reports", "search"),
    ("fastapi", "fastapi", "serving searches", "server"),
    ("uvicorn", "uvicorn", "serving searches", "server"),
    ("dbos", "dbos", "jobs that outlive a crash", "server"),
    ("sqlalchemy", "sqlalchemy", "storing jobs", "server"),
    ("alembic", "alembic", "upgrading what is stored", "server"),
    ("psycopg", "psycopg", "several workers on Postgres", "server"),
    ("structlog", "structlog", "logs for machines", "server"),
    ("prometheus_client", "prometheus-client", "metrics", "server"),
    ("httpx2", "httpx2", "asking a service", "server"),
    ("uuid_utils", "uuid-utils", "naming jobs", "server"),
    ("numba", "numba", "faster solvers", "fast"),
    ("PIL", "pillow", "reading folders of images", "images"),
)
_PLANNING: Final = ("mpsearch", "numpy", "scipy", "highspy", "pulp")


@final
@dataclass(frozen=True, kw_only=True)
class GpuFound:
    """The GPU that torch would use, or what is missing for one."""

    name: str = ""
    missing: str = ""


def doctor(*, folder: CacheFolder = None, as_json: Json = False) -> None:
    """Show what this machine can do and what is missing."""
    with session(as_json=as_json) as run:
        store = Cache(folder=folder or default_cache_folder())
        processor = this_processor()
        missing = [
            {"package": name, "for": purpose, "install": f"pip install 'mpsearch[{extra}]'"}
            for module, name, purpose, extra in _PACKAGES
            if find_spec(module) is None
        ]
        versions = installed_versions([*_PLANNING, *(name for _, name, _, _ in _PACKAGES)])
        gpu = _gpu()
        runtimes = {
            "openvino": find_spec("openvino") is not None,
            "onnxruntime": find_spec("onnxruntime") is not None,
            "torch": find_spec("torch") is not None,
            "torch_cuda": not gpu.missing,
            "simulation": True,
        }
        refused = tries_refused()
        held = {kind: count for kind, (_, count) in store.sizes().items()}
        run.answer(
            {
                "processor": processor,
                "versions": versions,
                "runtimes": runtimes,
                "gpu": gpu,
                "cache": {"folder": store.folder, "bytes": held},
                "missing": missing,
                "sandbox": {"layers": layers_that_hold(refused), "refused": refused},
            },
            shown=stacked(
                table_of(
                    "machine",
                    "",
                    rows=[
                        ("processor", processor.name),
                        ("cores", processor.cores),
                        ("instructions", " ".join(processor.flags) or "unknown"),
                        ("runtimes", " ".join(name for name, found in runtimes.items() if found)),
                        ("GPU", gpu.name or gpu.missing),
                        ("sandbox", " ".join(layers_that_hold(refused)) or "no layer holds"),
                        ("cache", f"{store.folder}, {size(float(sum(held.values())))}"),
                    ],
                ),
                table_of("package", "version", rows=list(versions.items())),
                table_of(
                    "missing", "for", "install", rows=[tuple(item.values()) for item in missing]
                )
                if missing
                else Text("Nothing is missing."),
            ),
        )


def _gpu() -> GpuFound:
    if find_spec("torch") is None or find_spec("onnx") is None:
        return GpuFound(missing="torch and onnx are needed to see one")
    from mpsearch.runtimes.torch_cuda import TorchCuda

    try:
        return GpuFound(name=TorchCuda().device(1).name)
    except (MissingPackageError, UnsupportedFeatureError) as error:
        return GpuFound(missing=str(error).partition(". ")[0])
