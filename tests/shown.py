"""What a command showed, and what it failed with."""

from kernels import Kernel, Ran


def plain(ran: Ran) -> str:
    """Return the plain text of all outputs."""
    return "\n".join(ran.check().of_type("text/plain"))


def html(ran: Ran) -> str:
    """Return the HTML of all outputs."""
    return "\n".join(ran.check().of_type("text/html"))


def failed(kernel: Kernel, code: str) -> tuple[str, str]:
    """Run a cell that fails, and return the error's class and what the user sees of it: a line or two."""
    ran = kernel.run(code)
    assert ran.status == "error", plain(ran)
    (shown,) = [output for output in ran.outputs if output["output_type"] == "error"]
    assert len(shown["traceback"]) <= 2
    return ran.error_name, "\n".join(shown["traceback"])
