"""One more request parameter is one more field of one file; everything else follows it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_magic.options import parameters

DECLARED = '    top_k: Annotated[int, Parameter("sample from the K most likely tokens only", "K", whole(1))]\n\n\n'

FACTS = """
import importlib.util, json, sys
from pathlib import Path
from typing import get_type_hints


class Declared:
    def find_spec(self, name, path=None, target=None):
        if name == "llm_magic.options.parameters":
            return importlib.util.spec_from_file_location(name, "parameters.py")


sys.meta_path.insert(0, Declared())

from llm_magic.api import active_session
from llm_magic.capabilities import Capabilities
from llm_magic.completion.candidates import Candidates
from llm_magic.completion.context import context_of
from llm_magic.errors import Origin, UnsupportedError
from llm_magic.messages import user
from llm_magic.options import AskOptions
from llm_magic.options.mapping import from_mapping
from llm_magic.options.reader import help_text, parse
from llm_magic.picker.backend import FIELDS
from llm_magic.providers.litellm import read_config
from llm_magic.request import Parameters, Request
from llm_magic.wire import chat, completions, refusals, responses

request = Request("m", (user("Hi"),), Parameters(parse("--top-k 40")[0].parameters))
try:
    refused = str(responses.body(request, Capabilities(api="responses")))
except UnsupportedError as error:
    refused = error.message
config = Path("config.yaml")
config.write_text("model_list: [{model_name: a, litellm_params: {model: openai/m, top_k: 7}}]")
print(json.dumps({
    "parser": parse("--top-k 40")[0].parameters,
    "help": [line.strip() for line in help_text().splitlines() if "--top-k" in line],
    "completion": [found.text for found in Candidates(active_session(), {}).at(context_of("%%llm --top-"))[1]],
    "keyword": get_type_hints(AskOptions)["top_k"].__name__,
    "params": from_mapping({"top-k": "9"}, "LLMMagics.params").parameters,
    "capabilities": "top_k" in Capabilities().parameters,
    "chat": chat.body(request, Capabilities())["top_k"],
    "completions": completions.body(request, Capabilities())["top_k"],
    "responses": refused,
    "refusal": refusals.refused({"error": {"message": "'top_k' is bad"}}, 400, Origin("p"), body={"top_k": 40}).hint,
    "litellm": read_config(config).aliases["a"]["top_k"],
    "picker": FIELDS["top_k"],
}))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return where a parameter arrives that is declared in a copy of the one file."""
    folder = tmp_path_factory.mktemp("declared")
    before, last, after = Path(parameters.__file__).read_text(encoding="utf-8").rpartition("\n\nPARAMETERS: ")
    (folder / "parameters.py").write_text(before + DECLARED + last + after, encoding="utf-8")
    ran = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", FACTS], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize(
    ("where", "arrived"),
    [
        ("parser", {"top_k": 40}),
        ("help", ["--top-k K                     sample from the K most likely tokens only"]),
        ("completion", ["--top-k", "--top-p"]),
        ("keyword", "int"),
        ("params", {"top_k": 9}),
        ("capabilities", True),
        ("chat", 40),
        ("completions", 40),
        ("responses", "--top-k does not exist in the Responses API, by which m is asked."),
        ("refusal", "Change or leave out --top-k."),
        ("litellm", 7),
        ("picker", "Top k"),
    ],
)
def test_one_more_parameter_arrives_everywhere(facts: dict[str, Any], where: str, arrived: object) -> None:
    assert facts[where] == arrived
