"""`%llm_config`: every setting in force with its source, the change of one for this session, trust in a project."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from llm_magic.close_matches import did_you_mean
from llm_magic.commands.kept_rows import kept_rows
from llm_magic.commands.line import Command
from llm_magic.config.effective import Setting, masked, set_value, settings_in_force
from llm_magic.config.precedence import DEFAULT, PROJECT, sources_of
from llm_magic.config.trust import COMMAND, GuardedSetting, forget, printable
from llm_magic.display import markup, table
from llm_magic.display.markup import Bundle
from llm_magic.errors import ConfigurationError, OptionError
from llm_magic.mcp.configuration import SETTING, read_server, waiting_servers
from llm_magic.options import Option
from llm_magic.session import Session

_CHANGE = re.compile(r"\s*([\w.-]+)\s*=(.*)", re.DOTALL)
_WIDEST_VALUE = 400
_INDENT = 7
_ALWAYS = {"LLMMagics", "ProviderRegistry"}


def run(command: Command) -> None:
    """Show all settings or one, or change one."""
    session = command.session
    change = _CHANGE.fullmatch(command.text)
    if change is not None:
        changed = set_value(session.settings, session.registry, change[1], command.expanded(change[2].strip()))
        command.show(f"{changed.name} = {changed.shown} ({changed.source})")
        return
    line = command.read([_FORGET], most=1, usage="[NAME[=VALUE]]")
    if line.words == ("trust",):
        command.show(_forget(command) if line.values else _trust(command))
        return
    if line.values:
        raise OptionError("--forget belongs to trust.", f"{COMMAND} --forget.")
    settings = settings_in_force(session.settings, session.registry)
    problem, project = session.registry.problem, session.registry.project
    bundles = [markup.mark(str(problem))] if problem is not None else []
    if project is not None and project.waiting:
        session.registry.waiting_line()  # is said with this
        bundles.append(markup.mark(project.line()))
    elif project is not None and project.guarded:
        bundles.append(markup.quiet(f"{printable(str(project.path))} is trusted by {project.trusted}."))
    if not line.words:
        sections = dict.fromkeys(_section(item) for item in settings)
        bundles += [_listed(name, [item for item in settings if _section(item) == name]) for name in sections]
        bundles += _mcp_servers(command.session)
        bundles.append(markup.quiet(kept_rows(keeps=session.settings.resume)))
    else:
        found = _named(line.words[0], settings, command)
        bundles += [_one(found[0])] if len(found) == 1 else [_listed(line.words[0], found, folded=False)]
        if [item.name for item in found] == ["LLMMagics.resume"]:
            bundles.append(markup.quiet(kept_rows(keeps=session.settings.resume)))
        elif [item.name for item in found] == [SETTING]:
            bundles += _mcp_servers(session)
    command.show(markup.joined(bundles))


def _mcp_servers(session: Session) -> list[Bundle]:
    """Return the MCP servers, those that wait for trust included: what is started or asked, from where, and its state.

    Nothing is started for it.
    """
    servers, sources = session.settings.mcp_servers, sources_of(session.settings)
    running = session.mcp_servers.offered() if servers else {}
    rows = []
    for name, settings in servers.items():
        try:
            shown = read_server(name, settings).shown
            state = f"running, {_tools(len(running[name]))}" if name in running else "not started"
        except ConfigurationError as error:
            shown, state = "", error.message
        source = sources.of_entry(session.settings, "mcp_servers", name)
        rows.append(_server_row(name, shown, source, state))
    waiting = waiting_servers(session.registry.waiting)
    rows += [_server_row(name, "", PROJECT, f"waits for {COMMAND}") for name in waiting]
    if not rows:
        return []
    lines = [f"  {row['MCP server']} = {row['is'] or '?'} ({row['from']})\n      {row['state']}" for row in rows]
    page = table.shown(rows, widest=_WIDEST_VALUE)["text/html"]
    return [{"text/html": page, "text/plain": "\n".join(["MCP servers:", *lines, ""])}]


def _server_row(name: str, shown: str, source: str, state: str) -> dict[str, str]:
    return {"MCP server": f"mcp:{name}", "is": shown, "from": source, "state": state}


def _tools(count: int) -> str:
    return "1 tool" if count == 1 else f"{count} tools"


_FORGET = Option("forget", ("--forget",), "", "trust the project's file no more")


def _trust(command: Command) -> Bundle | str:
    """Put in force, and remember, what waits in the project's file; show it."""
    registry = command.session.registry
    project = registry.trust_project()
    if project is None:
        return (
            "There is no pyproject.toml with a section [tool.llm_magic] here, or up to the repository's root or home."
        )
    path = printable(str(project.path))
    if not project.guarded:
        return f"Nothing in {path} needs trust."
    said = f"In force from now on, trusted by {project.trusted}. Changed there, it waits again."
    return markup.joined([markup.quiet(f"{path} sets:"), _guarded(project.guarded), markup.quiet(said)])


def _guarded(settings: Sequence[GuardedSetting]) -> Bundle:
    """Return settings that need trust, each to its end: what is cut is where somebody would hide something."""
    rows = [
        {"setting": item.name, "value": repr(masked(item.value, item.keys[-1])), "could": item.could}
        for item in settings
    ]
    tables = [table.shown(rows[at : at + table.MAX_ROWS]) for at in range(0, len(rows), table.MAX_ROWS)]
    lines = [f"{row['setting']} = {row['value']}\n    could {row['could']}" for row in rows]
    return {"text/html": "".join(item["text/html"] for item in tables), "text/plain": "\n".join(lines)}


def _forget(command: Command) -> str:
    """Forget the trust in the project's file."""
    project = command.session.registry.project
    if project is None or not forget(project):
        return "No project's file is trusted here."
    return f"{printable(str(project.path))} is forgotten: what it set stays until the kernel restarts, and waits then."


def _section(item: Setting) -> str:
    return item.name.rpartition(".")[0]


def _named(name: str, settings: Sequence[Setting], command: Command) -> list[Setting]:
    """Return the setting of a name, all of a section, or all that share the name of a trait.

    Raises
    ------
    ConfigurationError
        There is none.

    """
    section, _, trait = name.rpartition(".")
    registry = command.session.registry
    if (section or name) in registry.names():  # a class's own provider stands under the class's name
        provider = registry.get(section or name)
        own = type(provider).__name__ if provider.name == provider.kind else provider.name
        name = f"{own}.{trait}" if section else own
    known: set[str] = set()
    for part in (lambda item: item.name, _section, lambda item: item.name.rpartition(".")[2]):
        if found := [item for item in settings if part(item) == name]:
            return found
        known |= {part(item) for item in settings}
    raise ConfigurationError(
        f"There is no setting {name}.", did_you_mean(name, known, "%llm_config lists all settings.")
    )


def _one(item: Setting) -> Bundle:
    """Return one setting with its whole help, and how to change it."""
    facts = {item.name: item.shown, "from": item.source, "help": item.help}
    section, _, trait = item.name.rpartition(".")
    places = f"%llm_config {item.name}=VALUE sets it for this session"
    if section.isidentifier() and section[0].isupper():
        place = "tool.llm_magic" if section in _ALWAYS else f"tool.llm_magic.{section}"
        places += (
            f", {trait} under [{place}] in pyproject.toml for a project, c.{item.name} in ipython_config.py for all"
        )
    return markup.joined([table.shown(facts), markup.quiet(f"{places}.")])


def _listed(title: str, items: Sequence[Setting], *, folded: bool = True) -> Bundle:
    """Return settings as a table; among others, an unchanged provider is folded."""
    rows = [{"setting": item.name, "value": item.shown, "from": item.source, "help": item.help} for item in items]
    html = table.shown(rows)["text/html"]
    if not folded:
        return {"text/html": html, "text/plain": "\n".join(_lines(items))}
    changed = sum(item.source != DEFAULT for item in items)
    opened = changed > 0 or title in _ALWAYS
    head = f"{title}: {changed} of {len(items)} set"
    lines = _lines(items) if opened else [f"{item.name} = {item.shown}" for item in items]
    hint = [] if opened else [f"%llm_config {title} tells what each is for."]
    return {
        "text/html": markup.unfolding(head, html, opened=opened),
        "text/plain": "\n".join([f"{head}", *(f"  {line}" for line in [*lines, *hint]), ""]),
    }


def _lines(items: Sequence[Setting]) -> list[str]:
    """Return two lines for each setting: value and source, and what there is room for of the help."""
    room = shutil.get_terminal_size().columns - _INDENT
    lines = []
    for item in items:
        lines += [f"{item.name} = {_cut(item.shown, _WIDEST_VALUE)} ({item.source})", f"    {_cut(item.help, room)}"]
    return lines


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
