"""Which single setting of a runtime makes a plan fail, found by building it without."""

from collections.abc import Callable, Mapping, Sequence

from mpsearch.errors import DeploymentError


def culprit_told(
    attempt: Callable[[Mapping[str, str]], object],
    *,
    settings: Mapping[str, str],
    suspects: Sequence[tuple[str, str]],
) -> str:
    """Return a sentence that names the first setting without which a failed plan holds.

    Args:
        attempt: Builds and checks the plan under settings; raises DeploymentError if it fails.
        settings: Those under which it failed.
        suspects: Other values of single settings, each tried by itself.
    """
    for name, value in suspects:
        try:
            attempt({**settings, name: value})
        except DeploymentError:
            continue
        given = f"{name}={settings[name]}" if name in settings else f"{name} left unset"
        return f"The cause is the setting {given}: with {name}={value} the plan holds."
    if not suspects:
        return "The runtime has no setting that is known to cause this."
    tried = ", ".join(f"{name}={value}" for name, value in suspects)
    return f"No single setting causes it: it fails with {tried} too."
