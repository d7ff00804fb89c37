"""A page that is attacked: what runs, what is asked for, and what is in its outputs that harmless ones do not have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import lab
from payloads import payloads

SCRIPT = (Path(__file__).parent / "oracle.js").read_text(encoding="utf-8")
HIDDEN = ".jp-OutputArea-child {display: none}"
"""Outputs have no layout as they come: each further one would cost as much as all before it."""
_NUMBER = re.compile(r"pwned\D{0,3}(\d+)")
_SHOWN = 25
"""Problems that a failure names."""


@dataclass
class Watch:
    """Everything that a page did that no page of harmless outputs does.

    Made before the page goes anywhere. `problems` are what was seen, by the payloads that may be the cause.
    """

    name: str
    page: Any
    origin: str
    """Scheme, host and port that the page may ask."""
    ignored: tuple[str, ...] = ()
    """Hosts that the page asks by itself."""
    problems: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    outputs: int = 0

    def __post_init__(self) -> None:
        self.page.add_init_script(SCRIPT)
        self.page.context.route(lambda url: not url.startswith(self.origin), lambda route: route.abort())
        self.page.on("request", lambda request: self._asked(request.url, request.method))
        self.page.on("websocket", lambda socket: self._asked(socket.url, "websocket"))
        self.page.on("dialog", lambda dialog: self._note(f"a dialog: {dialog.message}", dialog.message))
        self.page.on("popup", lambda popup: self._opened(popup.url))

    def _asked(self, url: str, method: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"data", "blob", "about"} or parts.hostname in self.ignored:
            return
        if parts.path.endswith("/api/resolvePath"):
            return  # a front end looks whether what reads like a path in plain text is one
        ours = urlsplit(self.origin)
        if "pwned" in url.lower() or (parts.hostname, parts.port) != (ours.hostname, ours.port):
            self._note(f"a request: {method} {url.partition('?')[0][:200]}", url)

    def _opened(self, url: str) -> None:
        if url != "about:blank":  # where a link to a script leads that is to open a window of its own
            self._note(f"a window: {url}", url)

    def _note(self, what: str, text: str) -> None:
        number = _NUMBER.search(unquote(text))
        self.problem(what, [int(number[1])] if number else [])

    def problem(self, what: str, numbers: Iterable[int], channel: str = "") -> None:
        """Take note of a problem, and of the payloads that may be the cause."""
        known = tuple(number for number in numbers if number < len(payloads()))
        seen = self.problems.setdefault(known, [])
        if (line := f"[{channel}] {what}" if channel else what) not in seen:
            seen.append(line)

    @property
    def acting(self) -> int:
        """How many payloads act, or may."""
        return len({number for numbers in self.problems for number in numbers[:1]})

    def judge(self, areas: str, arguments: Any = None) -> None:
        """Judge outputs: `areas` is JavaScript, a function that returns a list of `{node, payloads, channel}`."""
        found = self.page.evaluate(
            f"""async given => {{
                const all = ({areas})(given);
                const found = oracle.judge(all.map(each => each.node));
                await oracle.provoke(found.map(each => all[each.number].node));
                const what = ({{number, faults}}) => ({{faults, ...all[number], node: undefined}});
                return {{count: all.length, hits: oracle.hits.splice(0), found: found.map(what)}};
            }}""",
            arguments,
        )
        self.outputs += int(found["count"])
        for each in found["found"]:
            for fault, html in each["faults"]:
                self.problem(f"{fault} in {html!r}", _named(html, each["payloads"]), each["channel"])
        for hit in found["hits"]:
            self.problem(f"script ran: {hit}", [hit] if isinstance(hit, int) else [])

    def verdict(self, most: int = _SHOWN) -> str:
        """Return what is wrong by payload, of `most` of them; empty where nothing is."""
        if not self.problems:
            return ""
        lines = [f"{self.name}: {self.acting} payloads act:"]
        for numbers, seen in list(self.problems.items())[:most]:
            lines += [f"  {_said(number)}" for number in numbers[:2]] or ["  no payload is known for:"]
            lines += [f"      {each}" for each in seen[:5]]
        more = len(self.problems) - most
        return "\n".join([*lines, f"  … and {more} more"] if more > 0 else lines)


def _said(number: int) -> str:
    if number < 0:
        return "a harmless text:"
    payload = payloads()[number]
    return f"{payload.name} ({number}): {payload.text[:600]!r}"


def _named(html: str, numbers: Sequence[int]) -> Sequence[int]:
    """Return the payloads of an output that a piece of it names, or all of them."""
    own = [int(number) for number in _NUMBER.findall(html)]
    return [number for number in own if number in numbers] or numbers


@dataclass(frozen=True)
class FrontEnd:
    """JupyterLab (`lab`) or Notebook 7 (`notebook`): its URL and the folder that it serves."""

    app: str
    url: str
    root: Path


def unlimited(root: Path) -> Path:
    """Write the settings of a server that shows all outputs at once, and passes on as many as there are."""
    settings = root / ".home" / "jupyterlab_settings_dir" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    everything = {"windowingMode": "none", "maxNumberOutputs": 1_000_000}
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(everything), encoding="utf-8")
    configuration = root / ".home" / "jupyter_config_dir"
    configuration.mkdir()
    no_limit = {"ZMQChannelsWebsocketConnection": {"limit_rate": False}}
    (configuration / "jupyter_server_config.json").write_text(json.dumps(no_limit), encoding="utf-8")
    return root


@dataclass(frozen=True)
class Attacked:
    """A notebook in a front end, and what is seen of its page."""

    notebook: lab.Page
    watch: Watch

    def learn(self, cells: Iterable[int]) -> None:
        """Learn from the outputs of cells what harmless ones are made of."""
        self.notebook.page.evaluate(
            "async cells => { await oracle.quiet(1000); oracle.learn(oracle.outputs(cells).map(each => each.node)); }",
            list(cells),
        )

    def judge(self, cells: Iterable[int]) -> None:
        """Judge the outputs of cells, when the front end has rendered them."""
        self.notebook.page.evaluate("oracle.quiet(1000)")
        self.watch.judge("oracle.outputs", list(cells))


@contextmanager
def opened(browser: Any, front_end: FrontEnd, cells: Sequence[str]) -> Iterator[Attacked]:
    """Open a notebook that is watched from its first request on."""
    watches: list[Watch] = []

    class Watching:
        """A browser whose contexts have a page that is watched."""

        def new_context(self, **options: Any) -> Any:
            context = browser.new_context(**options)
            new_page = context.new_page

            def watched() -> Any:
                page = new_page()
                watches.append(Watch(front_end.app, page, front_end.url))
                return page

            context.new_page = watched
            return context

    with lab.Page(Watching(), front_end.url, front_end.root, cells, app=front_end.app) as notebook:
        hiding = notebook.page.add_style_tag(content=HIDDEN)
        hiding.evaluate("node => { oracle.hiding = node; oracle.keep(['jupyter-config-data', 'MathJax', '__pwned']); }")
        yield Attacked(notebook, watches[0])


_LIBRARIES = ("cdnjs.cloudflare.com", "cdn.jsdelivr.net", "unpkg.com")
"""Where a page of nbconvert has its libraries from."""


def converted(browser: Any, notebook: Any, control: int, folder: Path) -> Watch:
    """Judge the HTML that nbconvert makes of a notebook; the outputs of the cell `control` are harmless."""
    from nbconvert import HTMLExporter

    html, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    file = folder / "converted.html"
    file.write_text(html.replace("</head>", f"<style>{HIDDEN}</style></head>", 1), encoding="utf-8")
    said: list[dict[str, Any]] = []
    last: dict[str, Any] = {"payloads": [], "channel": "none"}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            last = output.get("metadata", {}).get("attack", last)
            said.append({**last, "control": cell is notebook.cells[control]})
    context = browser.new_context()
    try:
        page = context.new_page()
        watch = Watch("nbconvert", page, "file://", _LIBRARIES)
        page.goto(file.as_uri(), wait_until="domcontentloaded", timeout=180_000)
        count = page.evaluate(
            """async said => {
                await oracle.quiet(500);
                const nodes = [...document.querySelectorAll('.jp-OutputArea-child')];
                oracle.all = nodes.map((node, number) => ({node, ...said[Math.min(number, said.length - 1)]}));
                oracle.learn(oracle.all.filter(each => each.control).map(each => each.node));
                oracle.keep([]);
                return nodes.length;
            }""",
            said,
        )
        if count != len(said):
            watch.problem(
                f"of {len(said):,} outputs the page has {count:,}", said[min(count, len(said) - 1)]["payloads"]
            )
        watch.judge("() => oracle.all")
    finally:
        context.close()
    return watch
