"""Did you mean …? The known names that are close to one that is unknown, and the hint that names them."""

from __future__ import annotations

from collections.abc import Iterable


def close_matches(name: str, known: Iterable[str], most: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are close to `name`, the closest first, with or without their provider.

    `cutoff` is the least likeness, from 0 to 1.

    >>> close_matches("temprature", ["temperature", "top_p"])
    ['temperature']
    >>> close_matches("smolm2", ["local:smollm2"])
    ['local:smollm2']
    >>> close_matches("DF", ["df"])
    ['df']

    """
    import difflib

    names = sorted(set(known))
    found = difflib.get_close_matches(name, names, most, cutoff)
    tails = {item.partition(":")[2] or item: item for item in names}
    found += [tails[tail] for tail in difflib.get_close_matches(name.partition(":")[2] or name, tails, most, cutoff)]
    found += [item for item in names if item.lower() == name.lower()]
    return list(dict.fromkeys(found))[:most]


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", most: int = 3) -> str:
    """Return the hint that names the close matches; `otherwise` where there are none.

    >>> did_you_mean("temprature", ["temperature", "top_p"])
    'Did you mean temperature?'
    >>> did_you_mean("x", ["temperature"], "%llm_config lists all settings.")
    '%llm_config lists all settings.'

    """
    close = [item for item in close_matches(name, known, most) if item != name]
    return f"Did you mean {' or '.join(close)}?" if close else otherwise
