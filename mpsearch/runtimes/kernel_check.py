"""Whether the kernel that ran a layer is the one that its format asks for."""

from collections.abc import Mapping
from typing import Final

from mpsearch.core.formats import Format, format_named
from mpsearch.core.hardware import Support
from mpsearch.core.plan import Plan
from mpsearch.errors import DeploymentError
from mpsearch.runtimes.runtime import Kernel

_GATHERS: Final = "Gather"
_PLAIN: Final = {"fp32": ("f32",), "bf16": ("bf16",)}
_WIDE: Final = ("f32", "bf16")
_QUANTISED_INPUT: Final = ("u8",)
_CODES: Final = ("u8", "i8")
# No runtime has a kernel that multiplies plain inputs of a convolution by small weights. Small
# in the file is all that a byte budget asks for, so these may be widened while loading.
_TRANSPOSED: Final = frozenset({"Deconvolution", "ConvTranspose"})
_STORED_IN_FILES: Final = frozenset({"Convolution", "Conv", "FusedConv"}) | _TRANSPOSED


def found_support(format_: Format, kernel: Kernel, *, base: str) -> Support:
    """Return how a kernel treats a quantised format.

    Native: it works on the stored numbers, and on quantised inputs where the format has
    them. Storage: the weight is kept small, and widened to compute; that of a convolution is
    small in the file, and may be widened while loading. None: it is kept wide.
    """
    if kernel == Kernel.folded():
        return Support.NATIVE
    if format_.is_floating:
        return Support.NATIVE if kernel.precision in _plain(kernel, base) else Support.NONE
    if format_.is_of_inputs:  # of a product, which has no weight
        return Support.NATIVE if kernel.precision in _CODES else Support.NONE
    if format_.activation is not None and kernel.type in _TRANSPOSED:
        return Support.NONE  # its inputs were left float, which nobody asks for
    stored = _stored(format_)
    if kernel.weight != stored:
        return Support.STORAGE if _is_widened(format_, kernel, base=base) else Support.NONE
    has_codes = format_.activation is not None and format_.activation.kind == "integer"
    wanted = _QUANTISED_INPUT if has_codes else (stored,)
    return Support.NATIVE if kernel.precision in wanted else Support.STORAGE


def _stored(format_: Format) -> str:
    return f"{'f' if format_.weight.kind == 'floating' else 'i'}{format_.weight.bits}"


def _is_widened(format_: Format, kernel: Kernel, *, base: str) -> bool:
    """Return whether a convolution of weights alone runs in the base, as an unquantised one."""
    is_plain = kernel.precision in _plain(kernel, base) and kernel.weight in _WIDE
    return format_.activation is None and kernel.type in _STORED_IN_FILES and is_plain


def _plain(kernel: Kernel, base: str) -> tuple[str, ...]:
    """Return in what a kernel may compute where nothing is quantised."""
    # Gathering computes nothing, so the precision of a plain table is not the base's. Transposed
    # convolutions have no kernels in bf16 for all shapes; those in fp32 lose less.
    is_free = kernel.type == _GATHERS or kernel.type in _TRANSPOSED
    return (*_PLAIN[base], *(_PLAIN["fp32"] if is_free else ()))


def check_kernels(plan: Plan, kernels: Mapping[str, Kernel]) -> None:
    """Raise DeploymentError where a layer of the plan runs in another way than planned."""
    for layer, name in plan.assignment.items():
        kernel = kernels.get(layer)
        if kernel is None or not _is_planned(format_named(name), kernel, base=plan.base):
            found = "none" if kernel is None else f"{kernel.name} on {kernel.precision}"
            weight = "" if kernel is None else f" with its weight kept as {kernel.weight}"
            raise DeploymentError(
                f"Layer {layer!r} is planned as {name!r} under base {plan.base!r}, and its kernel "
                f"is {found}{weight}. Expected {_expectation(format_named(name), plan.base)}. "
                "Choose another format for the layer, or other settings of the runtime."
            )


def _is_planned(format_: Format, kernel: Kernel, *, base: str) -> bool:
    support = found_support(format_, kernel, base=base)
    if support is Support.NATIVE:
        return True
    # Weights kept small are all that a weight-only format promises.
    return support is Support.STORAGE and format_.activation is None


def _expectation(format_: Format, base: str) -> str:
    if format_.is_floating:
        return f"one on {' or '.join(_PLAIN[base])}"
    if format_.is_of_inputs:
        return f"one on {' or '.join(_CODES)} inputs"
    if format_.activation is not None:
        inputs = "u8" if format_.activation.kind == "integer" else _stored(format_)
        return f"one on {inputs} inputs with weights kept as {_stored(format_)}"
    return f"one with weights kept as {_stored(format_)}"
