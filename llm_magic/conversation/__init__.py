"""Conversations: turns kept by the cells that said them.

A cell run again takes its own turn's place, and later turns stay. The rules, as far as a kernel can
know them:

- A cell belongs where it first ran. Moving it in the notebook does not move its turn.
- A copied cell has its own id, so it is a new turn at the end. So is each run without an id.
- A deleted cell's turn stays until the reset: the front end does not tell of the deletion.
- A cell that fails or is interrupted leaves the conversation as it was.
- Several prompts of one cell are parts of one place; running the cell again replaces all of them.
"""

from llm_magic.conversation.conversations import Conversation, Conversations
from llm_magic.conversation.turns import Turn, estimate, window

__all__ = ["Conversation", "Conversations", "Turn", "estimate", "window"]
