"""Which provider classes there are: those of the entry-point group `llm_magic.providers`, loaded when first used."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from llm_magic.close_matches import did_you_mean
from llm_magic.errors import ConfigurationError
from llm_magic.providers.credentials import imported

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from llm_magic.providers.base import Provider

GROUP = "llm_magic.providers"
_OURS = "llm_magic.providers."


@cache
def entries() -> dict[str, EntryPoint]:
    """Return the entry points by name; one of ours is not replaced by another of its name."""
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name not in found or entry.value.startswith(_OURS):
            found[entry.name] = entry
    return found


def class_names() -> dict[str, str]:
    """Return the names of the entry points by those of their classes, which are sections of the configuration."""
    return {entry.value.rpartition(":")[2]: name for name, entry in entries().items()}


def class_of_kind(name: str) -> type[Provider] | None:
    """Return the class of an entry point; None where there is none, or it cannot be loaded."""
    try:
        return load(name) if name in entries() else None
    except ConfigurationError:
        return None


def class_of_section(name: str) -> type[Provider] | None:
    """Return the class that a section of the configuration is named after, as `class_of_kind`."""
    if name == "Provider":
        from llm_magic.providers.base import Provider

        return Provider
    return class_of_kind(class_names().get(name, ""))


def load(name: str) -> type[Provider]:
    """Return the class of this name, or that an import string `module:Class` names.

    Raises
    ------
    ConfigurationError
        There is none, it cannot be imported, or it is no provider. A package that is broken only stops those
        who ask for its class.

    """
    from llm_magic.providers.base import Provider

    entry, source = entries().get(name), name
    if ":" in name:
        loaded = imported(name, "class")
    elif entry is not None:
        source = entry.value
        try:
            loaded = entry.load()
        except Exception as error:
            package = entry.dist.name if entry.dist is not None else entry.module
            raise ConfigurationError(
                f"The provider class {name} of the package {package} cannot be loaded: {type(error).__name__}: {error}",
                f"Update or remove {package}; the other providers still work.",
            ) from error
    else:
        known = sorted(entries())
        raise ConfigurationError(
            f"There is no provider class {name!r}.", did_you_mean(name, known, f"There are {', '.join(known)}.", 1)
        )
    if not (isinstance(loaded, type) and issubclass(loaded, Provider)):
        raise ConfigurationError(
            f"{source} is no provider.", "A provider is a subclass of llm_magic.providers.base.Provider."
        )
    return loaded
