"""ONNX Runtime on the CPU: explicit QDQ ONNX, lowered to the operators that it has kernels for."""

import importlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Final, final

import onnx

from mpsearch.core.graph import Layer
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.machine import installed_versions, this_processor
from mpsearch.errors import DeploymentError, MissingPackageError
from mpsearch.runtimes.one_layer import try_layer
from mpsearch.runtimes.onnxruntime_executable import OnnxRuntimeExecutable, Options, Session
from mpsearch.runtimes.onnxruntime_lowering import lowered
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime

ACCURACY_LEVEL: Final = "accuracy_level"
_CONFIG: Final = "session."
_PROVIDER: Final = "CPUExecutionProvider"
# These merge several layers into one node, in which no layer has a format of its own.
_MERGING: Final = ("AttentionFusion", "EmbedLayerNormFusion")
# Without them u8 x s8 products are added in 16 bits, and saturate.
_EXACT_PRODUCTS: Final = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_PRECISE: Final = f"{_CONFIG}x64quantprecision"
_SUSPECTS: Final = ((ACCURACY_LEVEL, "0"), (_PRECISE, "1"))
_ERRORS_ONLY: Final = 3
_OPTIMISED: Final = "optimised.onnx"
_OUTSIDE: Final = "weights.bin"
_LARGEST_INSIDE: Final = "1024"  # bytes of a tensor that is written into the file itself


@final
@dataclass(frozen=True, kw_only=True)
class OnnxRuntime(AbstractRuntime):
    """Microsoft's ONNX Runtime, CPU provider."""

    name: ClassVar[str] = "onnxruntime"
    formats: ClassVar[tuple[str, ...]] = ("w8a8", "w8a8-dynamic", "w8", "w4g128", "w4")
    product_formats: ClassVar[tuple[str, ...]] = ("a8",)
    revision: ClassVar[int] = 1

    @property
    def bases(self) -> tuple[str, ...]:
        """Return fp32 alone: the CPU provider has no bf16, and runs fp16 as fp32."""
        return ("fp32",)

    def device(self, threads: int) -> Device:
        """Return this processor under this version of ONNX Runtime."""
        processor = this_processor()
        flags = " ".join(processor.flags)
        return Device(
            name=f"{processor.name} ({flags})" if flags else processor.name,
            runtime=self.name,
            threads=threads,
            software=installed_versions(["onnxruntime"]),
        )

    def _settings(self, base: str) -> dict[str, str]:  # noqa: ARG002 - there is one base
        # Level 4 multiplies 8-bit inputs, quantised on the fly in blocks as long as the weight's.
        chosen = {ACCURACY_LEVEL: "4"}
        if not _EXACT_PRODUCTS.intersection(this_processor().flags):
            chosen[_PRECISE] = "1"
        return chosen

    def suspects(self, settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return what changes numbers: inputs quantised on the fly, products that saturate."""
        return tuple((name, value) for name, value in _SUSPECTS if settings.get(name) != value)

    @cached_property
    def _module(self) -> Any:  # noqa: ANN401 - onnxruntime ships no types
        try:
            return importlib.import_module("onnxruntime")
        except ImportError as error:
            raise MissingPackageError(
                "Package 'onnxruntime' is not installed. Expected it for running plans of "
                "runtime 'onnxruntime'. Install it with `pip install 'mpsearch[onnxruntime]'`."
            ) from error

    def _support(self, layer: Layer, format_name: str, *, base: str) -> Support:
        return try_layer(self, layer, format_name=format_name, base=base)

    def _build(
        self,
        model: onnx.ModelProto,
        *,
        settings: Mapping[str, str],
        threads: int,
        workload: Workload | None,
        profile: bool,
    ) -> AbstractExecutable:
        fixed = lowered(model, accuracy_level=int(settings.get(ACCURACY_LEVEL, "0")))
        if workload is not None:
            _fix_shapes_(fixed, workload)
        try:
            content = fixed.SerializeToString()
            with tempfile.TemporaryDirectory() as folder:
                session = self._session(content, settings=settings, threads=threads, folder=folder)
                optimised = onnx.load(Path(folder) / _OPTIMISED, load_external_data=False)
        except MissingPackageError:
            raise
        except Exception as error:  # its bindings raise classes of their own, by kind of failure
            raise DeploymentError(
                f"ONNX Runtime does not open the model: {' '.join(str(error).split())[:400]} "
                f"Expected settings {dict(settings)} to work"
                + (f" with shapes {dict(workload.shapes)}" if workload else "")
                + ". Change the format of the layer it names, or the shapes."
            ) from error
        return OnnxRuntimeExecutable(
            model=fixed,
            session=session,
            optimised=optimised,
            shapes=None if workload is None else workload.shapes,
            profiled=(
                partial(self._profiled, content, settings=settings, threads=threads)
                if profile
                else None
            ),
        )

    def _session(
        self, content: bytes, *, settings: Mapping[str, str], threads: int, folder: str
    ) -> Session:
        options = self._options(settings, threads=threads)
        options.optimized_model_filepath = str(Path(folder) / _OPTIMISED)
        for key, value in (
            ("session.optimized_model_external_initializers_file_name", _OUTSIDE),
            (
                "session.optimized_model_external_initializers_min_size_in_bytes",
                _LARGEST_INSIDE,
            ),
        ):
            options.add_session_config_entry(key, value)
        return self._opened(content, options=options)

    def _profiled(
        self, content: bytes, *, settings: Mapping[str, str], threads: int, prefix: str
    ) -> Session:
        options = self._options(settings, threads=threads)
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        return self._opened(content, options=options)

    def _opened(self, content: bytes, *, options: Options) -> Session:
        session: Session = self._module.InferenceSession(
            content, options, providers=[_PROVIDER], disabled_optimizers=list(_MERGING)
        )
        return session

    def _options(self, settings: Mapping[str, str], *, threads: int) -> Options:
        options = self._module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        for key, value in settings.items():
            if key.startswith(_CONFIG):
                options.add_session_config_entry(key, value)
        return options


def _fix_shapes_(model: onnx.ModelProto, workload: Workload) -> None:
    for value in model.graph.input:
        if value.name in workload.shapes:
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in workload.shapes[value.name]:
                shape.dim.add().dim_value = size
