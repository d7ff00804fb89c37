"""Which Dask client a run means: the current one, one at an address, or one that is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_magic.errors import ConfigurationError, OptionError

if TYPE_CHECKING:
    from distributed import Client

CONNECT = 5.0
"""Seconds that a scheduler has to answer."""

_EXAMPLE = "from distributed import Client; client = Client()"


def client_of(on: Any) -> Client:
    """Return the client that `on` names: "dask" (the current one), an address, or the client itself.

    Raises
    ------
    ConfigurationError
        Dask is not installed, there is no current client, or nothing answers at the address.
    OptionError
        It is none of these.

    """
    try:
        import distributed
    except ImportError:
        raise ConfigurationError(
            "Rows are asked from the workers of a Dask cluster, and dask is not installed.",
            'pip install "llm_magic[dask]"',
        ) from None
    if isinstance(on, distributed.Client):
        client = on
    elif on == "dask":
        try:
            client = distributed.get_client()
        except ValueError:
            raise ConfigurationError("There is no current Dask client.", f"Make one: {_EXAMPLE}") from None
    elif isinstance(on, str) and "://" in on:
        try:
            client = distributed.Client(on, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            said = str(error).partition("\n")[0].rstrip(".")
            raise ConfigurationError(
                f"No Dask scheduler answers at {on}: {type(error).__name__}: {said}.",
                "Its address is that of the scheduler: tcp://host:8786.",
            ) from None
    else:
        raise OptionError(
            f"on= is no Dask cluster: {on!r:.60}.",
            'Say "dask" (the current client), "tcp://host:8786", or give a Client.',
        )
    if client.asynchronous:
        raise OptionError(
            "An asynchronous Dask client cannot be waited for here.", "Give one made without asynchronous=True."
        )
    if client.status != "running":
        raise ConfigurationError(f"The Dask client is {client.status}.", f"Make a new one: {_EXAMPLE}")
    return client
