"""What a browser sends of a form, read without trust."""

from urllib.parse import parse_qs

from fastapi import Request

from mpsearch.errors import UsageError


async def fields_of(request: Request, *, largest: int) -> dict[str, str]:
    """Return the last value of each field that is not empty.

    Raises:
        UsageError: The form has more than `largest` bytes.
    """
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > largest:
            raise UsageError(
                f"The form is longer than {largest} bytes. Expected what its fields hold. "
                "Fill it in again."
            )
    fields = parse_qs(body.decode(errors="replace"))
    return {name: values[-1] for name, values in fields.items()}
