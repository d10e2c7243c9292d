"""Which runtime drives the device that a user names."""

from typing import Final

from mpsearch.errors import UnsupportedFeatureError
from mpsearch.runtimes import RUNTIMES

_PROCESSOR: Final = "cpu"
_GPU: Final = "cuda"
_OF_THE_GPU: Final = "torch_cuda"
_DEFAULT: Final = "openvino"
# What may stand beside "cuda": the default, which nobody may have named, and torch.
_GIVING_WAY: Final = frozenset({_DEFAULT, "torch", _OF_THE_GPU})


def runtime_on(device: str, runtime: str) -> str:
    """Return the runtime to use: "cuda" is driven by `torch_cuda`, "cpu" by what was named.

    `torch_cuda` is a runtime by its own name too. The GPU is looked for at once.

    Raises:
        UnsupportedFeatureError: The device is unknown, there is no GPU, or the runtime does not
            drive it.

    Example:
        >>> runtime_on("cpu", "onnxruntime")
        'onnxruntime'
    """
    if device not in (_PROCESSOR, _GPU):
        raise UnsupportedFeatureError(
            f"Device {device!r} is not supported. Expected 'cpu' or 'cuda'. Leave it out for 'cpu'."
        )
    if device == _GPU and runtime not in _GIVING_WAY:
        raise UnsupportedFeatureError(
            f"Runtime {runtime!r} does not drive device 'cuda'. Expected {_OF_THE_GPU!r}. Leave "
            "the runtime out, or the device."
        )
    chosen = _OF_THE_GPU if device == _GPU else runtime
    if chosen == _OF_THE_GPU:
        RUNTIMES[chosen].device(1)  # which says it where there is no GPU
    return chosen
