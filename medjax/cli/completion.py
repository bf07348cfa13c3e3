"""What the shell completes after Tab: experiments, presets, and names that an option takes. It loads nothing heavy."""

from collections.abc import Callable


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completion of an option that takes one of `names`."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def experiment(incomplete: str) -> list[str]:
    """Names of experiments that begin so, without the presets."""
    from medjax.running.checkout import find_experiments

    return [entry.name for _, entry in find_experiments() if entry.name.startswith(incomplete)]


def experiment_and_preset(incomplete: str) -> list[str]:
    """Names of experiments that begin so; where only one does, it with each of its presets as well."""
    from medjax.running.checkout import find_experiments

    name = incomplete.partition(":")[0]
    found = [entry for _, entry in find_experiments() if entry.name.startswith(name)]
    if len(found) == 1 or ":" in incomplete:
        presets = [f"{entry.name}:{preset}" for entry in found for preset in entry.presets]
        found_names = [entry.name for entry in found] + presets
        return [text for text in found_names if text.startswith(incomplete)]
    return [entry.name for entry in found]
