"""`%%llm` and `%llm`: read the options, let the session do the work, bind what it gives back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from traitlets import TraitError, validate

from llm_magic.config.settings import Settings
from llm_magic.control_characters import visible
from llm_magic.errors import ConfigurationError, Interrupted, LLMError, OptionError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.batches.batch import Batch
    from llm_magic.batches.remote.state import BatchState
    from llm_magic.comparison.responses import Comparison
    from llm_magic.comparison.rows.answers import ComparedAnswers
    from llm_magic.display import ComparisonView, RowsView, View
    from llm_magic.mapping.answers.answers import Answers
    from llm_magic.mapping.inputs.inputs import Inputs
    from llm_magic.mapping.run import RowsRun
    from llm_magic.mapping.screen import RowsScreen
    from llm_magic.options import Options
    from llm_magic.response import Response
    from llm_magic.session import Session
    from llm_magic.session.job import Job, Screen
    from llm_magic.session.plan import Cell, CellRun

R = TypeVar("R")


@magics_class
class LLMMagics(Magics, Settings):
    """Settings of every `%%llm` cell; `%llm_config` shows all that are in force."""

    def __init__(self, shell: InteractiveShell, **traits: Any) -> None:
        super().__init__(shell, **traits)
        self.shell: InteractiveShell
        self.session: Session
        self.shown: Callable[[object], None]
        self._cells = 0  # that ran so far
        self._running: tuple[str | None, str] = None, ""  # the cell that runs, and its code
        self._run: CellRun | None = None  # its prompts
        self._offered: set[str] = set()  # cells below which one with their code stands

    @validate("mcp_servers")
    def _check_servers(self, proposal: Any) -> Any:
        """Refuse a server that is wrong, where it is set; of one in a file the first use tells, and loading goes on.

        By a `TraitError`, for only then does `%config` take the value back.
        """
        servers = proposal["value"]
        if servers and hasattr(self, "session"):
            from llm_magic.mcp.configuration import read_servers

            try:
                read_servers(servers)
            except ConfigurationError as error:
                raise TraitError(str(error)) from error
        return self._mark_secrets(proposal)

    @no_var_expand
    @line_cell_magic
    def llm(
        self, line: str, cell: str | None = None
    ) -> Response | Answers | Comparison | ComparedAnswers | Job[Any] | None:
        """Send a prompt to a language model, show the answer as it arrives, and bind a value to a variable.

        %%llm [options]        the lines below are the prompt, with {{ expressions }} of your variables
        %llm [options] prompt  the same on one line; x = %llm … works

        -m NAME     which model: an alias, provider:model, or a routed name; %llm_models lists them
        -m a,b      several models, side by side: -o binds a dict by model, _llm.responses has all;
                    with --each a column a model (of records model.field), of a list dicts by model
        -o NAME     bind the value;  --as TYPE  a validated value: int, list[City], Literal["a", "b"]
        -t 0        temperature;  -s TEXT  system prompt;  -i IMAGE  an image;  --tools f,g  functions
        -c NAME     conversation;  --once  none;  -b  in the background;  --dry-run  see the request
        --record once  answer from the recording, where there is one; else ask, and record it

        %%llm --help lists all options; Tab completes them. %llm_picker picks the model for all cells.
        _llm is the last response: .text, .value, .usage, .cost, .messages.

        Examples
        --------
        %%llm -m local:smollm2 -o summary
        Summarize {{ text }} in one sentence.

        %%llm --as "list[City]" -o cities
        Extract all cities: {{ text }}
        """
        from llm_magic.options import reader
        from llm_magic.options.combinations import need_each
        from llm_magic.session.plan import Cell

        identifier, unseen = self._cell_id(), not self._allows_input()
        run = self._current_run(seen=not unseen)
        run.prompts += 1
        namespace: dict[str, Any] = self.shell.user_ns
        magic = "%llm" if cell is None else "%%llm"
        options, prompt = reader.parse(line, magic=magic, prompt=cell is None, expand=partial(_expanded, namespace))
        if options.help:
            print(reader.help_text())  # noqa: T201 - a page to read
            return None
        body = prompt if cell is None else cell.removesuffix("\n")
        asked = Cell(body, options, namespace, identifier, part=run.prompts - 1, run=run)
        names = self.session.models_asked(asked)
        several = len(names) > 1
        need_each(options, several=several)
        if several:
            return self._compare(asked, names, unseen=unseen)
        options = self.session.in_force(asked)
        later = bool(options.background) and not unseen
        asked = self._informed(asked, options, unseen=unseen)
        if options.each is not None:
            return self._answer_rows(asked, options, options.each, later=later)
        if options.dry_run:
            self._show_dry_run(asked, options)
            return None
        return self._answer(asked, options, later=later)

    def _informed(self, cell: Cell, options: Options, *, unseen: bool) -> Cell:
        """Return a cell with what holds for where it runs: a note on `-b` there, and why `--confirm` cannot ask."""
        from llm_magic.options.option import shadowed

        background = bool(options.background)
        return replace(
            cell,
            notes=(*shadowed(options.out), *([_IN_FOREGROUND] if background and unseen else [])),
            cannot_confirm=_cannot_confirm(background=background, unseen=unseen, rows=options.each is not None),
        )

    def begin_cell(self, info: Any) -> None:
        """Take note that a cell begins to run; one that runs within another is part of that."""
        if info.cell_id is not None or self._cell_id() is None:
            self._cells += 1
            self._running, self._run = (info.cell_id, info.raw_cell), None
            self.session.running = info.cell_id, self._cells

    def end_cell(self, result: Any) -> None:
        """Take note that a cell has run: one that is not what it was leaves its conversation.

        One that failed is taken for what it was, unless it is plainly Python.
        """
        if result is None or result.info.cell_id is None or result.error_before_exec is not None:
            return
        cell_id = result.info.cell_id
        run = self._run if self._running[0] == cell_id else None
        error = result.error_in_exec
        if error is None or not (run or isinstance(error, UsageError) or "%llm" in result.info.raw_cell):
            self.session.end_cell(cell_id, self._cells, run)

    def _current_run(self, *, seen: bool) -> CellRun:
        """Return the run of the cell that runs now."""
        from llm_magic.session.plan import CellRun

        if self._run is None:
            self._run = CellRun(self._cells, self._running[1], seen)
        return self._run

    def _show_dry_run(self, cell: Cell, options: Options) -> None:
        """Show what a cell would send, and say what it therefore does not do."""
        from llm_magic import display

        undone = ["no code is put into the next cell"] if options.code else []
        display.show_preview(self.session.preview(cell), display.nothing_sent(options.out, *undone))

    def _answer(self, cell: Cell, options: Options, *, later: bool) -> Response | Job[Response] | None:
        """Do what a cell asks for; `later` it ends now, and the answer goes on."""
        from llm_magic import display

        view = display.choose(self.shell, self, options.show or "markdown", background=later)
        if later:
            job = self.session.ask_in_background(
                cell, view, partial(self._finish, cell, options, later=True), partial(self._failed, view)
            )
            self.shown(job)  # its answer is what the cell shows
            return job
        try:
            response = self.session.ask(cell, view)
        except (LLMError, Interrupted) as error:
            if error.response is not None:
                self._remember(error.response)
            raise
        self._finish(cell, options, response)
        result: Response | Job[Response] = response
        if options.background:
            from llm_magic.session.job import Job

            result = Job.ended(response.model, response)
        self.shown(result)
        return result

    def _compare(
        self, cell: Cell, names: tuple[str, ...], *, unseen: bool
    ) -> Comparison | ComparedAnswers | Job[Any] | None:
        """Do what a cell asks of several models, side by side; with `--each` for each row of an input."""
        from llm_magic import display
        from llm_magic.comparison.run import of_model
        from llm_magic.options.combinations import need_alike, need_one_model

        each = cell.options.each
        if each is None:
            need_one_model(cell.options, names)
        in_force = {name: self.session.in_force(of_model(cell, name)) for name in names}
        need_alike(in_force)
        options = in_force[names[0]]
        background = bool(options.background)
        later = background and not unseen
        cell = self._informed(cell, options, unseen=unseen)
        bind, show = self.shell.user_ns.__setitem__, options.show or "markdown"
        if each is not None:
            from llm_magic.comparison.rows.cell import ComparedRowsCell

            rows = ComparedRowsCell(self.session, cell, names, each)
            if options.dry_run:
                rows.show_requests()
                return None
            below = display.choose_rows_view(self.shell, self, show, background=later)
            return self._follow(rows.screen(below, bind), rows.fail, below, background=background, later=later)
        from llm_magic.comparison.cell import ComparisonCell

        comparison = ComparisonCell(self.session, cell, names)
        if options.dry_run:
            comparison.show_requests()
            return None
        view = display.choose_comparison_view(self.shell, self, show, background=later)
        return self._follow(comparison.screen(view, bind), comparison.fail, view, background=background, later=later)

    def _follow(
        self,
        screen: Screen[R],
        fail: Callable[[R], None],
        view: View | RowsView | ComparisonView,
        *,
        background: bool,
        later: bool,
    ) -> R | Job[R]:
        """Show rows, or several models, until all have ended; `later` the cell ends now, and they go on."""
        from llm_magic.session.job import Job

        if later:
            job = Job.begin(screen, fail, partial(_tell, view), self.session.jobs)
            self.shown(job)
            return job
        try:
            result = screen.follow()
        except Interrupted as error:
            if error.response is not None:
                self._remember(error.response)
            raise
        fail(result)
        self.shown(result)
        if background:
            ended = Job.ended(screen.model, result)
            self.shown(ended)
            return ended
        return result

    def _answer_rows(self, cell: Cell, options: Options, each: str, *, later: bool) -> Answers | Job[Answers] | None:
        """Do what a cell asks for each row of an input; `later` it ends now, and the rows go on."""
        from llm_magic import display
        from llm_magic.mapping.inputs.expression import evaluate, refuse_out
        from llm_magic.mapping.inputs.inputs import is_dask, read_inputs
        from llm_magic.mapping.run import RowsRun
        from llm_magic.mapping.screen import RowsScreen

        if options.out:
            refuse_out(each, options.out)
        value = evaluate(each, cell.namespace)
        if is_dask(value):
            from llm_magic.mapping.dask.inputs import gathered

            value, cell = gathered(value, cell)
        engine = None
        if options.batch_file is not None:
            return self._write_rows(cell, options, read_inputs(value, each), options.batch_file)
        if options.batch:
            from llm_magic.batches.rows.engine import BatchEngine

            engine = BatchEngine(self.session)
            later = not (options.wait or options.dry_run)
            if later and not self._allows_input():
                raise _needs_wait()
        run = RowsRun(self.session, cell, read_inputs(value, each), engine=engine)
        if engine is None and not options.dry_run:
            from llm_magic.batches.direct_run import heed_batches

            heed_batches(self.session, run)
        if options.dry_run:
            preview = self.session.loop.run(run.preview())
            display.show_preview(preview, display.nothing_sent(options.out))
            return None
        view = display.choose_rows_view(self.shell, self, options.show or "markdown", background=later)
        screen = RowsScreen(run, view, self.session.loop, partial(self._bind_rows, run, options))
        if later and engine is not None:
            return self._begin_batch(run, engine.state, screen)
        return self._follow(screen, partial(_fail_rows, run), view, background=bool(options.background), later=later)

    def _write_rows(self, cell: Cell, options: Options, inputs: Inputs, named: str) -> Answers | None:
        """Write the rows of a cell into a file, and say what to do with it; where all are answered, do as ever."""
        from llm_magic import display
        from llm_magic.batches.batch_file.engine import BatchFileEngine
        from llm_magic.batches.batch_file.written_rows import RowsWritten
        from llm_magic.mapping.run import RowsRun
        from llm_magic.mapping.screen import RowsInterrupted, table_of
        from llm_magic.model_names import shown_model

        run = RowsRun(self.session, cell, inputs, engine=BatchFileEngine(self.session, named))
        if options.dry_run:
            display.show_preview(self.session.loop.run(run.preview()), display.nothing_sent(options.out))
            return None
        try:
            answers = self.session.loop.run(run.collect())
        except KeyboardInterrupt:
            raise RowsInterrupted(run.how_far()) from None
        except RowsWritten as ended:
            display.show_lines(ended.written.lines(options.out or ""), run.take_notes(), options.show or "markdown")
            return None
        view = display.choose_rows_view(self.shell, self, options.show or "markdown")
        view.begin(shown_model(run.model), run.total)
        for note in run.take_notes():
            view.note(note)
        view.finish(run.progress(), table_of(run, answers), self._bind_rows(run, options, answers))
        _fail_rows(run, answers)
        self.shown(answers)
        return answers

    def _begin_batch(self, run: RowsRun, state: BatchState, screen: RowsScreen) -> Batch[Answers]:
        """Submit rows as offline batches, and end; where no prompt follows, once they are submitted."""
        from llm_magic.batches.batch import Batch

        waits = not self._has_prompt()

        def tell(error: Exception) -> None:
            ends = not threading.main_thread().is_alive()  # Python, and with it all connections
            if not ends and (state.is_submitted or not waits):  # else the cell itself fails
                _tell(screen.view, error)

        batch: Batch[Answers] = Batch.begin(screen, partial(_fail_rows, run), tell, self.session.jobs)
        batch.follow(state)
        if waits:
            batch.until_submitted()
            if not batch.done():
                again = "Run this again to fetch the answers, or say --wait."
                screen.view.note(f"Not waited for: {state.where()}. {again}")
        if getattr(self.shell, "kernel", None) is not None:  # a terminal shows no more than this of what runs on
            self.shown(batch)
        return batch

    def _bind_rows(self, run: RowsRun, options: Options, answers: Answers) -> str:
        """Bind what rows give, and return the line below them."""
        self.shell.user_ns["_llm"] = answers
        if options.sample is not None:
            statistics, unbound = run.statistics(), [f"{options.out} is not bound."] if options.out else []
            more = [str(statistics)] if statistics.failed or statistics.known else []  # else the sample's line has it
            return " · ".join([*more, " ".join([run.of_sample(answers), *unbound])])
        if options.out:
            self.shell.user_ns[options.out] = run.bound(answers)
        return str(run.statistics())

    def _finish(self, cell: Cell, options: Options, response: Response, *, later: bool = False) -> None:
        """Bind what the answer gives, and offer its code as the next cell; `later` the cell is over, so it is shown."""
        self._remember(response)
        if options.out:
            self.shell.user_ns[options.out] = response.value
        if options.code:
            self._offer_code(cell, response, later=later)

    def _offer_code(self, cell: Cell, response: Response, *, later: bool) -> None:
        """Put the code of an answer into the next cell; where nobody reads that, show it."""
        from llm_magic.markdown.fences import snippet

        found = snippet(response.text, cut=response.finish_reason in _CUT)
        for note in found.notes:
            print(visible(note))  # noqa: T201 - below the answer, where the user looks
        if not found.code:
            if cell.cell_id in self._offered:
                print(_EARLIER_CODE)  # noqa: T201 - nothing can take it away
        elif later:
            print(visible(found.code))  # noqa: T201 - to be copied
        elif self._has_next_cell():
            self.shell.set_next_input(visible(found.code))
            self._offered |= {cell.cell_id} if cell.cell_id is not None else set()
        else:
            print(f"{_NO_NEXT_CELL}\n{visible(found.code)}")  # noqa: T201 - to be copied

    def _has_next_cell(self) -> bool:
        """Tell whether a front end, or IPython's prompt, reads what is to be the next input."""
        if getattr(self.shell, "kernel", None) is not None:
            return self._allows_input()
        return self._has_prompt() and not getattr(self.shell, "simple_prompt", True)

    def _has_prompt(self) -> bool:
        """Tell whether a prompt follows the running cell: not in a script, or `-c`."""
        if getattr(self.shell, "kernel", None) is not None:
            return True
        prompts = getattr(self.shell, "keep_running", False)  # an InteractiveShell of a program has none
        return bool(prompts and getattr(self.shell.parent, "interact", True))

    def _failed(self, view: View, error: Exception) -> None:
        """Tell why a cell in the background has no answer, and keep what had come."""
        if isinstance(error, LLMError) and error.response is not None:
            self._remember(error.response)
        _tell(view, error)

    def _remember(self, response: Response | Comparison) -> None:
        self.shell.user_ns["_llm"] = response

    def _allows_input(self) -> bool:
        """Tell whether somebody sits before the running cell: what only executes a notebook allows no input.

        Such a program (nbclient, nbconvert, papermill) does not read what a cell shows after its end either.
        """
        from llm_magic.display.outputs import is_watched

        return is_watched(self.shell)

    def _cell_id(self) -> str | None:
        """Return the front end's id of the running cell (JupyterLab and Notebook send it with each execution)."""
        kernel = getattr(self.shell, "kernel", None)
        if kernel is None:
            return None
        identifier = kernel.get_parent().get("metadata", {}).get("cellId")
        return identifier if isinstance(identifier, str) else None


_CUT = frozenset({"length", "content_filter", "refusal", "truncated", "interrupted"})
"""Ends of an answer that may lack code."""
_EARLIER_CODE = "The cell below has code of an earlier run: delete it, or run this cell again."
_NO_NEXT_CELL = "--code: nobody reads a next cell here, so this is the code:"
_IN_FOREGROUND = "-b: ran in the foreground, for this notebook is executed by a program, which reads no late outputs."


def _needs_wait() -> OptionError:
    """Return the error of a batch whose cell would end before it, where nobody reads late outputs."""
    return OptionError(
        "--batch needs --wait here: this notebook is executed by a program, which reads no late outputs.",
        "Say --batch --wait; a batch that an earlier run has submitted is waited for, not submitted again.",
    )


def _fail_rows(run: RowsRun, answers: Answers) -> None:
    """Raise the error of a run of which rows failed, where these are not to be kept as values."""
    from llm_magic.mapping.answers.answers import rows_failed

    error = rows_failed(answers) if run.plan.options.on_error != "keep" else None
    if error is not None:
        raise error


def _cannot_confirm(*, background: bool, unseen: bool, rows: bool) -> OptionError | None:
    """Return the error of `--confirm` where nobody can be asked, None where the user can."""
    if rows:
        return OptionError(
            "--confirm: nobody can be asked for each row of --each.",
            "Leave --confirm out, and give tools that may be called without.",
        )
    if unseen:
        where = "this notebook is executed by a program (nbclient, nbconvert, papermill), which allows no input"
        return OptionError(f"--confirm: {where}.", "Leave --confirm out, or run the cell where somebody can answer.")
    if background:
        return OptionError("--confirm: nobody can be asked in the background.", "Leave out -b, or --confirm.")
    return None


def _expanded(namespace: Mapping[str, Any], text: str) -> str:
    """Return an unquoted value with IPython's `$name` and `{expression}` replaced."""
    from llm_magic.prompt import expand_option

    return expand_option(text, namespace)


def _tell(view: View | RowsView | ComparisonView, error: Exception) -> None:
    """Tell why what goes on in the background came to an end."""
    view.note(f"{type(error).__name__}: {error}")
