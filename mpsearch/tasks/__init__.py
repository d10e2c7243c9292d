"""What goes in and what counts as good: data readers, outputs, divergence and quality."""

from mpsearch.tasks.callable_task import CallableTask
from mpsearch.tasks.causal_lm import CausalLm
from mpsearch.tasks.classification import Classification
from mpsearch.tasks.ctc import Ctc
from mpsearch.tasks.dataset import Batch, Dataset
from mpsearch.tasks.denoiser import Denoiser
from mpsearch.tasks.dense import Dense
from mpsearch.tasks.embedding import Embedding
from mpsearch.tasks.guess import guess_task
from mpsearch.tasks.masked_lm import MaskedLm
from mpsearch.tasks.readers import check_fits, read_data
from mpsearch.tasks.retrieval import Retrieval
from mpsearch.tasks.seq2seq_lm import Seq2SeqLm
from mpsearch.tasks.task import AbstractTask

TASKS: dict[str, AbstractTask] = {
    "embedding": Embedding(),
    "classification": Classification(),
    "causal_lm": CausalLm(),
    "masked_lm": MaskedLm(),
    "seq2seq_lm": Seq2SeqLm(),
    "ctc": Ctc(),
    "retrieval": Retrieval(),
    "dense": Dense(),
    "denoiser": Denoiser(),
}

__all__ = [
    "TASKS",
    "AbstractTask",
    "Batch",
    "CallableTask",
    "Dataset",
    "check_fits",
    "guess_task",
    "read_data",
]
