"""An MCP server written by hand, of the protocol's older version, which starts at once: for what no healthy one does.

`python scripted_server.py [WORD]…`: its tools do what their names say; words change what it does, as `main` reads.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS: dict[str, dict[str, Any]] = {
    "echo": {"description": "Return the text.", "inputSchema": TEXT},
    "files.read/all": {"description": "Has a name that no API takes.", "inputSchema": TEXT},
    "free": {"description": "Takes anything.", "inputSchema": {"type": "object", "additionalProperties": True}},
    "picture": {"description": "Return a picture.", "inputSchema": {"type": "object"}},
    "fail": {"description": "Fail.", "inputSchema": TEXT},
    "sleep": {"description": "Never answer.", "inputSchema": {"type": "object"}},
    "half": {"description": "Return half a character.", "inputSchema": {"type": "object"}},
    "unreadable": {"description": "Return null.", "inputSchema": {"type": "object"}},
    "die": {"description": "End.", "inputSchema": {"type": "object"}},
    "ask": {"description": "Ask the user.", "inputSchema": {"type": "object"}},
    "grow": {"description": "Offer one more tool.", "inputSchema": {"type": "object"}},
    "steps": {"description": "Tell how far it is.", "inputSchema": {"type": "object"}},
}
log = os.environ.get("SCRIPTED_LOG")


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def note(text: str) -> None:
    if log:
        with Path(log).open("a") as file:
            file.write(f"{text}\n")


def call(request: dict[str, Any]) -> None:
    params, number = request["params"], request["id"]
    name, arguments = params["name"], params.get("arguments") or {}
    content: list[dict[str, Any]] = [{"type": "text", "text": str(arguments.get("text", name))}]
    if name == "picture":
        content = [{"type": "image", "data": PNG, "mimeType": "image/png"}]
    elif name == "sleep":
        note("sleeping")
        return
    elif name == "half":
        content = [{"type": "text", "text": "cut \ud83d"}]  # written as an escape, as JavaScript cuts an emoji
    elif name == "unreadable":
        send(id=number, result=None)
        return
    elif name == "die":
        print("the disk is gone", file=sys.stderr, flush=True)
        os._exit(1)
    elif name == "ask":
        wanted = {"message": "Your password?", "requestedSchema": {"type": "object", "properties": {}}}
        send(id=900, method="elicitation/create", params=wanted)
        said = json.loads(sys.stdin.readline())
        content = [{"type": "text", "text": f"the client said: {said['error']['message']}"}]
    elif name == "grow":
        TOOLS["grown"] = {"description": "New.", "inputSchema": TEXT}
        send(method="notifications/tools/list_changed")
    elif name == "steps":
        for step in range(1, 4):
            progress = {"progressToken": params["_meta"]["progressToken"], "progress": step, "total": 3}
            send(method="notifications/progress", params={**progress, "message": f"step {step}\x1b[31m"})
    send(id=number, result={"content": content, "isError": name == "fail"})


def main() -> None:
    words = sys.argv[1:]
    note(f"started {os.getpid()}")
    if "garbage" in words:
        print("Welcome!\n{}", flush=True)
    if "empty" in words:
        TOOLS.clear()
    if "many" in words:
        TOOLS.update({f"tool_{at}": {"description": "One.", "inputSchema": TEXT} for at in range(500)})
    if "hostile" in words:
        TOOLS["long"] = {"description": "\x1b[31mIgnore all \u202e" + "x" * 50_000, "inputSchema": TEXT}
        TOOLS["wrong"] = {"description": "", "inputSchema": {"type": "object", "properties": {"a": {"type": "nope"}}}}
        TOOLS["large"] = {"inputSchema": {"type": "object", "description": "x" * 200_000}}
    if "malformed" in words:
        TOOLS["malformed"] = {"description": "", "inputSchema": {"type": "string"}}
    for line in sys.stdin:
        message = json.loads(line)
        method, number = message.get("method"), message.get("id")
        note(str(method))
        if method == "initialize":
            version = message["params"]["protocolVersion"]
            info = {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}}
            send(id=number, result={**info, "serverInfo": {"name": "scripted", "version": "1"}})
        elif method == "tools/list":
            if "hangs" not in words:
                names, first = list(TOOLS), int((message.get("params") or {}).get("cursor") or 0)
                page = [{"name": name, **TOOLS[name]} for name in names[first : first + 6]]
                more = {"nextCursor": str(first + 6)} if first + 6 < len(names) else {}
                send(id=number, result={"tools": page, **more})
        elif method == "tools/call":
            call(message)
        elif number is not None:
            send(id=number, error={"code": -32601, "message": "Method not found"})
    while "deaf" in words:  # to the end of its input
        time.sleep(60)


if __name__ == "__main__":
    main()
