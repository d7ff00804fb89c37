"""The executed cells: each once, by its last run, without prompts and without the one that asks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from executed import a_shell, printed, ran, result
from IPython.core.history import HistoryOutput

from llm_magic.config.settings import Settings
from llm_magic.context.executed_cells import ExecutedCells, is_code

PNG = bytes.fromhex("89504e470d0a1a0a")


def sources(cells: ExecutedCells) -> list[str]:
    return [cell.source for cell in cells.cells()]


def outputs(cells: ExecutedCells) -> list[tuple[str, str]]:
    return [(shown.kind, shown.text.within(999)) for shown in cells.cells()[-1].outputs]


def test_a_cell_that_is_run_again_is_one_cell_with_its_last_run() -> None:
    cells = ExecutedCells(a_shell())
    ran(cells, "x = 1", cell_id="a")
    ran(cells, "y = 1", cell_id="b")
    ran(cells, "x = 2", cell_id="a")
    assert sources(cells) == ["y = 1", "x = 2"]


def test_without_names_of_the_front_end_the_same_source_is_the_same_cell() -> None:
    cells = ExecutedCells(a_shell("x = 1", "y = 1", "x = 1"))
    ran(cells, "y = 1\n")
    assert sources(cells) == ["x = 1", "y = 1"]


def test_what_ran_before_loading_is_the_same_cell_once_its_name_is_known() -> None:
    cells = ExecutedCells(a_shell("x = 1", "y = 1"))
    ran(cells, "x = 1", cell_id="a")
    ran(cells, "x = 2", cell_id="a")
    assert sources(cells) == ["y = 1", "x = 2"]


def test_the_cell_that_asks_is_left_out_its_earlier_runs_too() -> None:
    cells = ExecutedCells(a_shell("z = 0"))
    ran(cells, "x = 1", cell_id="a")
    ran(cells, "LLM().ask('…', context=9)", cell_id="b")
    cells.began(SimpleNamespace(store_history=True, cell_id="b", raw_cell="LLM().ask('…', context='all')"))
    assert sources(cells) == ["z = 0", "x = 1"]


def test_silent_runs_and_runs_within_a_cell_are_none() -> None:
    cells = ExecutedCells(a_shell())
    info = SimpleNamespace(store_history=False, cell_id=None, raw_cell="hidden = 1")
    cells.began(info)
    cells.ended(SimpleNamespace(info=info, execution_count=None))
    cells.ended(None)
    assert sources(cells) == []
    assert cells.without_history
    ran(cells, "x = 1")
    assert not cells.without_history


def test_after_a_reset_only_what_runs_then_counts() -> None:
    shell = a_shell()
    cells = ExecutedCells(shell)
    for source in ("x = 1", "y = 2", "x = 3"):
        ran(cells, source)
    info = begun(cells, shell)
    shell.history_manager.input_hist_raw[:] = [""]  # as IPython does
    shell.history_manager.outputs.clear()
    done(cells, shell, info)
    assert sources(cells) == []
    ran(cells, "z = 3")
    assert sources(cells) == ["z = 3"]
    shell.execution_count = 2  # of a new session
    ran(cells, "a = 4")
    assert sources(cells) == ["z = 3", "a = 4"][1:]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("x = 1", True),
        ("# only a remark", True),
        ("", False),
        ("%%llm\nHello", False),
        ("# first\n\n%%llm -t 0\nHello", False),
        ("%%llm_embed\nsea", False),
        ("%llm Hello", False),
        ("%load_ext llm_magic\n%config LLMMagics.model = 'a'\nx = %llm -t 0 Hello\n%llm_models", False),
        ("%load_ext llm_magic\nimport os", True),
        ("%%time\nx = 1", True),
        ("%config InlineBackend.figure_format = 'png'", True),
        ("%llmx", True),
    ],
)
def test_prompts_and_our_magics_alone_are_no_code(source: str, code: bool) -> None:
    assert is_code(source) is code


def test_outputs_are_in_their_order() -> None:
    cells = ExecutedCells(a_shell())
    ran(cells, "x", printed("a", "b\n"), printed("warn\n", name="err"), printed("c\n"), result("3"))
    assert outputs(cells) == [("output", "ab\n"), ("stderr", "warn\n"), ("output", "c\n"), ("output", "3")]


def test_a_cell_that_failed_has_its_error() -> None:
    shell = a_shell()
    cells = ExecutedCells(shell)
    number = ran(cells, "f()", printed("before\n"))
    shell.history_manager.exceptions[number] = {
        "ename": "E",
        "evalue": "no",
        "traceback": ["\x1b[31mhere\x1b[0m", "E: no"],
    }
    assert outputs(cells) == [("output", "before\n"), ("error", "here\nE: no")]
    shell.history_manager.exceptions[number] = {"ename": "E", "evalue": "no", "traceback": None}
    assert outputs(cells)[-1] == ("error", "E: no")


def test_a_table_is_the_object_where_it_still_looks_so() -> None:
    shell = a_shell()
    cells = ExecutedCells(shell)
    frame = pd.DataFrame({"a": [1, 2]})
    number = ran(cells, "frame", result(repr(frame)))
    shell.user_ns["_oh"][number] = frame
    assert cells.cells()[0].outputs[0].value is frame
    frame["b"] = 3  # changed since
    assert cells.cells()[0].outputs[0].value is None
    assert outputs(cells)[0][1] == "   a\n0  1\n1  2"
    shell.user_ns["_oh"][number] = object()
    assert cells.cells()[0].outputs[0].value is None


def test_an_image_among_results() -> None:
    import base64

    cells = ExecutedCells(a_shell())
    ran(cells, "a", result("<Image>", **{"image/png": base64.b64encode(PNG).decode()}))
    ran(cells, "b", result("<Image>", **{"image/png": PNG}))
    ran(cells, "c", result("<Image>", **{"image/png": "no base64 é"}))
    assert [cell.outputs[0].image for cell in cells.cells()] == [PNG, PNG, None]


class Publisher:
    """As much of a kernel's display publisher as is used."""

    store_display_history = False

    def __init__(self) -> None:
        self.hooks: list[Any] = []
        self.register_hook, self.unregister_hook = self.hooks.append, self.hooks.remove

    def publish(self, text: str, kind: str = "display_data", **content: Any) -> None:
        message = {"msg_type": kind, "content": {"data": {"text/plain": text}, **content}}
        for hook in self.hooks:
            assert hook(message) is message


def watched() -> tuple[ExecutedCells, Any, Publisher]:
    shell = a_shell()
    shell.display_pub = Publisher()
    cells = ExecutedCells(shell)
    cells.watch()
    cells.watch()
    assert len(shell.display_pub.hooks) == 1
    return cells, shell, shell.display_pub


def begun(cells: ExecutedCells, shell: Any, cell_id: str = "a") -> Any:
    info = SimpleNamespace(store_history=True, cell_id=cell_id, raw_cell=f"cell {cell_id}")
    cells.began(info)
    shell.displayhook.prompt_count = shell.execution_count - 1
    return info


def done(cells: ExecutedCells, shell: Any, info: Any) -> None:
    cells.ended(SimpleNamespace(info=info, execution_count=shell.displayhook.prompt_count))
    shell.execution_count += 1


def test_displays_stand_where_they_were_shown() -> None:
    cells, shell, publisher = watched()
    info = begun(cells, shell)
    kept = shell.history_manager.outputs[shell.displayhook.prompt_count]
    publisher.publish("first")
    kept.append(printed("a\n"))
    publisher.publish("second")
    kept[-1].bundle["stream"].append("b\n")
    publisher.publish("third", transient={"display_id": "d"})
    kept.append(result("4"))
    publisher.publish("changed", kind="update_display_data", transient={"display_id": "d"})
    publisher.publish("an answer", metadata={"llm_magic": {}})
    publisher.publish("", kind="display_data", data={"text/html": "<b>x</b>"})
    done(cells, shell, info)
    texts = [text for _, text in outputs(cells)]
    assert texts == ["first", "a\n", "second", "b\n", "changed", "4", "x"]
    publisher.publish("of nobody")
    assert [text for _, text in outputs(cells)] == texts


def test_what_was_cleared_is_gone() -> None:
    cells, shell, publisher = watched()
    info = begun(cells, shell)
    kept = shell.history_manager.outputs[shell.displayhook.prompt_count]
    kept.append(printed("a\n"))
    publisher.publish("b")
    publisher.publish("", kind="clear_output")
    kept[-1].bundle["stream"].append("c\n")
    publisher.publish("d")
    done(cells, shell, info)
    assert [text for _, text in outputs(cells)] == ["c\n", "d"]


def test_displays_of_a_run_before_are_forgotten_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_magic.context import displays

    monkeypatch.setattr(displays, "MOST_BYTES", 20)
    cells, shell, publisher = watched()
    for _ in range(3):
        info = begun(cells, shell)
        publisher.publish("x" * 300_000)
        done(cells, shell, info)
    assert cells._displays is not None
    assert list(cells._displays._of_cells) == [3]
    assert len(cells._displays.of_cell(3)[0].text) == displays.MOST_TEXT
    info = begun(cells, shell, "b")
    for _ in range(displays.MOST_DISPLAYS + 50):
        publisher.publish("y", data={"text/plain": "y", "image/png": PNG})
    done(cells, shell, info)
    found = cells._displays.of_cell(4)
    assert len(found) == displays.MOST_DISPLAYS
    assert [display.image for display in found[-3:]] == [None, PNG, PNG]


def test_until_it_is_asked_for_only_that_a_cell_displayed_something_is_known() -> None:
    shell = a_shell()
    publisher = shell.display_pub = Publisher()
    cells = ExecutedCells(shell)
    for cell_id in "abab":
        info = begun(cells, shell, cell_id)
        if cell_id == "a":
            publisher.publish("shown")
        publisher.publish("an answer", metadata={"llm_magic": {}})
        done(cells, shell, info)
    publisher.publish("of nobody")
    assert [(cell.number, cell.unseen, cell.outputs) for cell in cells.cells()] == [(3, True, ()), (4, False, ())]
    cells.watch()
    info = begun(cells, shell, "a")
    publisher.publish("shown")
    done(cells, shell, info)
    assert [cell.unseen for cell in cells.cells()] == [False, False]
    cells.close()
    assert publisher.hooks == []


def test_a_table_is_displayed_as_in_prompts() -> None:
    shell = a_shell()
    shell.display_pub = Publisher()
    before = shell.display_formatter.format
    cells = ExecutedCells(shell, Settings())
    cells.watch()
    info = begun(cells, shell)
    for rows in (2, 500):
        frame = pd.DataFrame({"a": range(rows)})
        bundle, _ = shell.display_formatter.format(frame)
        shell.display_pub.publish("", data=bundle)
    frame = pd.DataFrame({"b": [1]})
    bundle, _ = shell.display_formatter.format(frame)
    shell.history_manager.outputs[shell.displayhook.prompt_count].append(result(bundle["text/plain"]))
    frame["b"] = 2  # changed since: it is as it was shown
    done(cells, shell, info)
    shell.display_formatter.format(frame)  # of no cell
    small, long, changed = (shown.value for shown in cells.cells()[-1].outputs)
    assert small.text == "| a |\n| ---: |\n| 0 |\n| 1 |\n\n2 rows × 1 column"
    assert "500 rows" in long.text
    assert "LLMMagics.max_rows" in long.notes[0]
    assert changed.text == "| b |\n| ---: |\n| 1 |\n\n1 row × 1 column"
    cells.close()
    assert shell.display_formatter.format == before


def test_a_table_that_cannot_be_read_is_displayed_all_the_same() -> None:
    class Frame(pd.DataFrame):
        @property
        def shape(self) -> Any:
            raise RuntimeError("broken")

        def __repr__(self) -> str:
            return "as shown"

    shell = a_shell()
    shell.display_pub = Publisher()
    cells = ExecutedCells(shell, Settings())
    cells.watch()
    info = begun(cells, shell)
    bundle, _ = shell.display_formatter.format(Frame({"a": [1]}), include={"text/plain"})
    shell.display_pub.publish("", data=bundle)
    done(cells, shell, info)
    assert outputs(cells) == [("output", "as shown")]


def test_a_hostile_message_disturbs_nobody() -> None:
    cells, shell, publisher = watched()
    info = begun(cells, shell)
    for content in ({"data": None}, {"data": 3}, {"data": {"image/png": 4}}, {"metadata": 7}, {"transient": "x"}):
        publisher.publish("x", **content)
    done(cells, shell, info)
    assert cells.cells()


def test_a_terminal_keeps_its_displays_itself() -> None:
    cells = ExecutedCells(a_shell())
    cells.watch()
    ran(cells, "display(1)", HistoryOutput("display_data", {"text/plain": "1"}), printed("a"))
    assert [text for _, text in outputs(cells)] == ["1", "a"]
    cells.close()
