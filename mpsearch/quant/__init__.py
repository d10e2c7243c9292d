"""What a number format does to a tensor; NumPy only, less `fake_torch`, which needs torch."""

from mpsearch.quant.floating import FloatingQuantizer
from mpsearch.quant.integer import IntegerQuantizer
from mpsearch.quant.quantizer import AbstractQuantizer

QUANTIZERS: dict[str, AbstractQuantizer] = {
    "integer": IntegerQuantizer(),
    "floating": FloatingQuantizer(),
}

__all__ = ["QUANTIZERS", "AbstractQuantizer"]
