"""A model that is a file is shown by the file's name, wherever it is shown, and still asked for whole."""

import pytest
from kernels import Kernel
from servers import Answer, ScriptedServer, chunk, document, stream
from shown import failed, plain

from llm_magic.display.answer import metadata
from llm_magic.display.footer import footer
from llm_magic.model_names import shown_model
from llm_magic.response import Response

FOLDER = "/srv/models/private"
PATH = f"{FOLDER}/tiny-Q4.gguf"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (PATH, "tiny-Q4.gguf"),
        (f"there:{PATH}", "there:tiny-Q4.gguf"),
        (f"there:file://{PATH}", "there:tiny-Q4.gguf"),
        (r"C:\models\tiny.gguf", "tiny.gguf"),
        (r"there:D:/models/tiny.gguf", "there:tiny.gguf"),
        (r"\\share\models\tiny", "tiny"),
        ("/srv/models/tiny/", "tiny"),
        ("~/models/tiny", "tiny"),
        ("../tiny", "tiny"),
        ("folder/tiny.GGUF", "tiny.GGUF"),
        ("/", "/"),
        ("", ""),
        ("there:", "there:"),
        ("openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("hub:openai/gpt-oss-120b:free", "hub:openai/gpt-oss-120b:free"),
        ("ft:gpt-4o:org::id", "ft:gpt-4o:org::id"),
        ("llama3:8b", "llama3:8b"),
        ("c:m", "c:m"),
    ],
)
def test_what_is_shown(name: str, shown: str) -> None:
    assert shown_model(name) == shown


def test_footer_and_metadata() -> None:
    asked = Response(model=f"there:{PATH}", provider="there", model_reported=PATH)
    first = Response(model="there:", provider="there", model_reported=PATH)
    for response in (asked, first):
        assert footer(response).startswith("there:tiny-Q4.gguf · ")
        assert metadata(response)["llm_magic"]["model"] == "there:tiny-Q4.gguf"


def serve(received: object) -> Answer:
    if received.method == "GET":  # type: ignore[attr-defined]  # a request
        return document({"data": [{"id": PATH, "object": "model"}]})
    if received.json["model"] != PATH:  # type: ignore[attr-defined]  # as above
        return document({"error": {"message": f"The model `{received.json['model']}` does not exist."}}, 404)  # type: ignore[attr-defined]  # as above
    answer = chunk("Hello", finish="stop")
    answer["model"] = PATH
    return stream(answer)


@pytest.mark.parametrize("model", ["there:", f"there:{PATH}", "there:tiny-Q4.gguf"])
def test_no_door_shows_where_the_file_lies(kernel: Kernel, model: str) -> None:
    with ScriptedServer(serve) as server:
        kernel.run("%llm_usage --reset\n%llm_chat reset").check()
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        listed = plain(kernel.run("%llm_models there --refresh"))
        tested = plain(kernel.run("%llm_provider test there"))
        ran = kernel.run(f"%%llm -m {model}\nHi").check()
        usage, chats, chat = (plain(kernel.run(line)) for line in ("%llm_usage", "%llm_chat list", "%llm_chat show"))
        asked = [request.json["model"] for request in server.requests if request.method == "POST"]
    assert asked == [PATH]
    for text in (listed, tested, usage, chats, chat, str(ran.outputs)):
        assert "tiny-Q4.gguf" in text
        assert FOLDER not in text


def test_an_error_has_the_file_s_name(kernel: Kernel) -> None:
    refusal = {"error": {"message": f"The model `{PATH}` does not exist."}}
    with ScriptedServer(document(refusal, 404)) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        name, text = failed(kernel, f"%%llm -m there:{PATH} --once\nHi")
    assert name == "ModelNotFoundError"
    assert "there:tiny-Q4.gguf" in text
    assert "The model `tiny-Q4.gguf` does not exist." in text
    assert FOLDER not in text


def test_a_model_that_its_server_does_not_know_is_told_with_the_close_ones(kernel: Kernel) -> None:
    def answers(received: object) -> Answer:
        if received.method == "GET":  # type: ignore[attr-defined]  # a request
            return document({"data": [{"id": "tiny-chat"}, {"id": "other"}]})
        return document({"error": {"message": "The model `tiny-chaat` does not exist.", "code": 404}}, 404)

    with ScriptedServer(answers) as server:
        kernel.run(f"%llm_provider add there --base-url {server.url}").check()
        name, text = failed(kernel, "%%llm -m there:tiny-chaat --once\nHi")
        assert (name, text.splitlines()[-1]) == (
            "ModelNotFoundError",
            "%llm_models there lists the models that it has.",
        )
        kernel.run("%llm_models there --refresh").check()
        _, text = failed(kernel, "%%llm -m there:tiny-chaat --once\nHi")
        hint = "Did you mean tiny-chat? %llm_models there lists the models that it has."
        assert text.splitlines()[-1] == hint
        _, text = failed(kernel, "%llm_embed -m there:tiny-chaat --each ['a']")
        assert text.splitlines()[-1] == hint


def test_the_turn_of_a_fallback_names_the_model_that_answered(kernel: Kernel) -> None:
    down = document({"error": {"message": "down"}}, 503)
    with ScriptedServer(down) as first, ScriptedServer(stream(chunk("Hello", finish="stop"))) as second:
        kernel.run(f"%llm_provider add one --base-url {first.url} --max-retries 0").check()
        kernel.run(f"%llm_provider add two --base-url {second.url}").check()
        kernel.run("%config ProviderRegistry.aliases = {'both': {'model': 'one:m', 'fallbacks': ['two:m']}}").check()
        ran = kernel.run("%%llm -m both -c told\nHi").check()
        shown = plain(kernel.run("%llm_chat show told"))
    models = [output["metadata"]["llm_magic"]["model"] for output in ran.outputs if output.get("metadata")]
    assert models == ["two:m"]
    assert "told, turn 1 of 1 · two:m" in shown
    assert kernel.value("_llm.model") == "two:m"
