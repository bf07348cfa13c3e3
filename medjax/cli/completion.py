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

    names = experiment(incomplete.partition(":")[0])
    if len(names) != 1 and ":" not in incomplete:
        return names
    presets = [f"{entry.name}:{one}" for _, entry in find_experiments() if entry.name in names for one in entry.presets]
    return [text for text in (*names, *presets) if text.startswith(incomplete)]
