"""The `%llm_…` magics: each reads its line and shows a table or a sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magic.commands.line import Command
    from llm_magic.session import Session


@magics_class
class LLMCommands(Magics):
    """Models, settings, providers, conversations, recordings, batches, usage and embeddings."""

    def __init__(self, shell: InteractiveShell, session: Session) -> None:
        super().__init__(shell)
        self.shell: InteractiveShell
        self.session = session

    def _do(self, name: str, line: str, work: Callable[[Command], Any], cell: str | None = None) -> Any:
        """Run a command, or print the help page that is its docstring."""
        from llm_magic.commands.line import Command

        magic = f"%{name}" if cell is None else f"%%{name}"
        command = Command(magic, line.strip(), self.session, self.shell, cell)
        if not command.asks_for_help():
            try:
                return work(command)
            finally:
                self.session.tell()
        print(inspect.getdoc(getattr(self, name)))  # noqa: T201 - a page to read
        return None

    @no_var_expand
    @line_magic
    def llm_models(self, line: str) -> None:
        """List the models that each provider has now, with what `-m` takes to ask them.

        %llm_models                       of all providers, asked side by side
        %llm_models PROVIDER              of one
        %llm_models PROVIDER:TEXT         of one, with TEXT in the name; * and ? are wildcards

        --refresh    ask again; without it, a list of the last minute is shown again

        Shown are each model's context in tokens, its owner and the day of its retirement, as far as
        the server tells. A provider that cannot be asked says why. Nothing is asked of a model, so
        it costs nothing.

        Examples
        --------
        %llm_models
        %llm_models openrouter:claude
        %llm_models local --refresh
        """
        from llm_magic.commands import models

        self._do("llm_models", line, models.run)

    @no_var_expand
    @line_magic
    def llm_config(self, line: str) -> None:
        """Show every setting with its value, where that comes from and what it is for; or change one.

        %llm_config                  all settings: LLMMagics (cells), ProviderRegistry, each provider
        %llm_config SECTION          one section: LLMMagics, OpenAIProvider, or a provider's name
        %llm_config NAME             one setting, with its whole help
        %llm_config NAME=VALUE       change it for this session
        %llm_config trust            show what in this project's pyproject.toml could send prompts or keys
                                     elsewhere, run code or write files, and put it in force; remembered
                                     until it changes; --forget trusts it no more

        VALUE is a Python literal, else text. A value comes from the session, else the project
        ([tool.llm_magic] in pyproject.toml), else the profile (ipython_config.py), else it is the
        default; an option of a cell comes before them all. Secrets are never part of a setting: a
        setting says where they are.

        Examples
        --------
        %llm_config model=vllm:smollm2
        %llm_config LLMMagics.params={"temperature": 0}
        %llm_config OpenAIProvider.timeout=30
        %llm_config timeout
        """
        from llm_magic.commands import configuration

        self._do("llm_config", line, configuration.run)

    @no_var_expand
    @line_magic
    def llm_provider(self, line: str) -> None:
        """List, add, remove and test the providers of this session.

        %llm_provider [list]                 names, classes, addresses, where the keys are
        %llm_provider add NAME [options]     add one, or replace one of this name
        %llm_provider add --litellm FILE     take over the model_list of a LiteLLM config.yaml
        %llm_provider remove NAME            take one out again
        %llm_provider test NAME              ask it for its models: URL, key and answer are checked,
                                             no model is asked, nothing is charged

        --class C            openai, azure, vllm, compatible (the default), local, or module:Class
        --base-url URL       where the API is, with its /v1
        --api-key-env VAR    the environment variable of the key, never the key itself
        --SETTING VALUE      any other setting of the class, such as --azure-endpoint, --api-version,
                             --timeout, --default-headers; %llm_config SECTION describes them

        Examples
        --------
        %llm_provider add gpu --class vllm --base-url http://gpu:8000/v1
        %llm_provider add eu --class azure --azure-endpoint https://eu.openai.azure.com --api-key-env EU_KEY
        %llm_provider add gateway --base-url https://example.org/v1 --headers-env {"X-Key": "GATEWAY_KEY"}
        %llm_provider test gpu
        """
        from llm_magic.commands import providers

        self._do("llm_provider", line, providers.run)

    @no_var_expand
    @line_magic
    def llm_chat(self, line: str) -> None:
        """List, show, shorten, reset, fork, switch, export and import conversations.

        %llm_chat [list]               all conversations; the current one is that of cells without -c
        %llm_chat show [NAME]          what was said in one
        %llm_chat drop N [N …] [NAME]  forget turns by their numbers in show: 2, 2 5, or 2-5
        %llm_chat reset [NAME]         forget all that was said in one
        %llm_chat fork NEW [NAME]      copy one; neither changes with the other from then on
        %llm_chat switch NAME          make one the current one; --new starts one that is empty
        %llm_chat export FILE [NAME]   to .json (messages of the chat API), .md or .ipynb (to read)
        %llm_chat import FILE [NAME]   from such a .json, as a new conversation

        Without NAME it is the current one; for import, the name of the file.

        A turn belongs to its cell. Run again, the cell sends the turns before its own and replaces its
        own; with --once, in another conversation or as Python it leaves no turn. A cell that was
        deleted, or made markdown, is not seen to go: drop its turn. Of a dropped turn the cell may run
        again, as a new turn at the end. JupyterLab, Notebook and VS Code tell which cell runs; where
        nobody does (IPython in a terminal, the older consoles, nbclient, papermill), and for
        LLM.ask(…, chat=NAME), each run is a new turn.

        Examples
        --------
        %llm_chat drop 3
        %llm_chat fork idea
        %llm_chat switch idea
        %llm_chat export talk.md
        """
        from llm_magic.commands import chats

        self._do("llm_chat", line, chats.run)

    @no_var_expand
    @line_magic
    def llm_recordings(self, line: str) -> None:
        """List, clear and export recordings: answers that are given again where the same is asked.

        %llm_recordings [list] [TEXT]      the last ones, or those with TEXT in prompt, answer or model
        %llm_recordings clear [--unused]   remove all of the file that is written, or those alone that no
                                           cell of this session was answered from, or recorded
        %llm_recordings clear --rows       what runs over many rows left, to be gone on with
        %llm_recordings export FILE        all, to a .jsonl file that is one of recordings, or to .md to read

        LLMMagics.record, or --record of a cell, says whether answers are recorded: off, once (what is
        recorded is not asked again), only (nothing is sent), new (all is asked anew and replaced).
        LLMMagics.record_file is the file; else NAME.llm.jsonl beside the notebook, or llm.jsonl.

        Run All, then clear --unused, leaves what the notebook needs as it is now.

        Examples
        --------
        %llm_recordings
        %llm_recordings list weather
        %llm_recordings clear --unused
        %llm_recordings export answers.md
        """
        from llm_magic.commands import recordings

        self._do("llm_recordings", line, recordings.run)

    @no_var_expand
    @line_magic
    def llm_batch(self, line: str) -> Any:
        """List, show, fetch, cancel and forget offline batches: rows that a server answers within a day or so.

        %llm_batch [list]              all that are kept here, the newest first, as their servers said last
        %llm_batch show ID             all that is known of one: ids at the server, files, lines it refused
        %llm_batch fetch ID            ask its server now; where it has ended, its answers are the result
        %llm_batch fetch FILE          the answers in the file that vLLM's run_batch wrote
        %llm_batch cancel ID           stop it at its server; what is answered by then is paid, and stays
        %llm_batch remove ID           forget its record and files here, and nothing at the server; --force:
                                       also one that is under way there

        ID is the beginning of its id here, or of that at the server.

        %%llm --each INPUTS --batch submits one. Its cell, run again in this kernel or another, on any day,
        finds it, waits for it and binds its variable; nothing is submitted twice.

        Examples
        --------
        %llm_batch
        %llm_batch show 3fa1
        answers = %llm_batch fetch 3fa1
        %llm_batch cancel batch_abc123
        """
        from llm_magic.commands import batches

        return self._do("llm_batch", line, batches.run)

    @no_var_expand
    @line_magic
    def llm_usage(self, line: str) -> None:
        """Show tokens, requests, time and cost so far, for each provider and model; and what budgets have left.

        %llm_usage            since the kernel started, or since the last --reset
        %llm_usage --reset    the same, and count from zero from now on, for the budgets too

        Tokens are those that servers counted, of streams too. A cost is shown only where a price is
        configured or the server itself reports the cost; a price is never guessed from a name. Time
        is that of the clock: requests at the same time are counted once.

        A budget (LLMMagics.budget, or that of a provider) also counts what is in flight, at what it
        may take; where a server tells no tokens, it counts what was reserved.

        Examples
        --------
        %llm_config OpenAIProvider.prices={"gpt-*": {"input": 2.5, "output": 10}}
        %llm_config LLMMagics.budget={"cost": 5.0, "tokens": 2_000_000, "requests": 100}
        %llm_usage
        """
        from llm_magic.commands import usage

        self._do("llm_usage", line, usage.run)

    @no_var_expand
    @line_cell_magic
    def llm_embed(self, line: str, cell: str | None = None) -> Any:
        """Turn texts into vectors: those of the lines below, or of an expression.

        %%llm_embed [options]               each line below that is not empty, as it stands
        %llm_embed --each EXPR [options]    each text that the expression gives: a list, a column, …

        -m, --model NAME     the model; else LLMMagics.embedding_model, else LLMMagics.model
        -o, --out NAME       variable to bind the vectors to; without it they are the result
        --as list|ndarray    a list of lists of float (the default), or a float32 array, texts × dimensions
        --dimensions N       shorter vectors, where the model can shorten them
        -p, --param K=V      any other field of the request; repeatable
        --batch N            texts in one request (256); several requests run at once
        --header K=V, --base-url URL, --timeout S, --retries N, --record MODE    as for %%llm
        --batch-api          embed by an offline batch (the Batch API), cheaper and within 24 hours: the cell
                             ends at once, and the vectors are bound when they are there; --batch N is then
                             the number of texts in a line of its file, --wait waits here, --poll SECONDS is
                             the time between two looks (30), --again submits anew what a batch has

        When a request fails or you interrupt, the vectors that came are kept: run the cell again, and
        it goes on there. An alias's fallbacks are not asked: vectors of two models do not compare.

        Examples
        --------
        %llm_embed --each df["text"] -m openai:text-embedding-3-small -o vectors --as ndarray
        %llm_embed --each df["text"] -m openai:text-embedding-3-small -o vectors --batch-api
        """
        from llm_magic.commands import embeddings

        return self._do("llm_embed", line, embeddings.run, cell)
