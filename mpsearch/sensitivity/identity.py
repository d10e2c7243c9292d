"""What a task is to the cache: two tasks that compare outputs alike have one identity."""

import dataclasses
import logging
from types import CodeType, FunctionType

from mpsearch.core.cache import content_hash
from mpsearch.tasks import AbstractTask

_LOG = logging.getLogger("mpsearch.sensitivity")


def task_identity(task: AbstractTask) -> str | None:
    """Return a hash of the task's name and settings; None where it cannot be known.

    A function counts by its code. One that closes over values, has defaults, or is another
    kind of callable cannot be told from its next version, so nothing is cached for it.
    """
    parts: list[object] = [type(task).__qualname__, task.name]
    for field in dataclasses.fields(task):
        value = getattr(task, field.name)
        if callable(value):
            code = _code_of(value)
            if code is None:
                _LOG.warning(
                    "Task %r holds a callable whose code cannot be hashed; sensitivities are not "
                    "cached. Use a plain function without closure to keep them.",
                    task.name,
                )
                return None
            parts.append(code)
        else:
            parts.append([field.name, repr(value)])
    return content_hash(*parts)


def _code_of(function: object) -> str | None:
    if not isinstance(function, FunctionType):
        return None
    if function.__closure__ or function.__defaults__ or function.__kwdefaults__:
        return None
    return _hash(function.__code__)


def _hash(code: CodeType) -> str:
    constants = [
        _hash(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts
    ]
    return content_hash(code.co_code, constants, list(code.co_names), list(code.co_varnames))
