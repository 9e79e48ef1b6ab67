"""From a record to token ids, exactly as the same text would reach the model when it generates."""

import re

from autodeco.data.messages import Messages, Tools, text_of
from autodeco.data.records import Record
from autodeco.errors import InputError


class RecordTokenizer:
    """Turns records into (prompt ids, completion ids) with a model's own vocabulary and chat template.

    The prompt gets the ids that it gets for generating: special tokens recognised, and a beginning-of-text token in
    front of plain text if the model wants one (a chat template writes its own). The completion gets the ids that follow
    those of the prompt when both are tokenized as one text, so a word that spans no boundary is split as in running
    text. It ends with the end-of-generation token: of the template, or the model's end-of-text token if ``append_end``
    and the text has none. What a template writes after that token, the model never generates. Where a record has the
    tokens that were drawn as its completion, and these spell it, they are the completion's: a model may draw a text as
    other tokens than a tokenizer makes of it.

    Vocabularies differ in the five methods at the end.
    """

    append_end = True

    def __call__(self, record: Record) -> tuple[list[int], list[int]]:
        """Return (prompt ids, completion ids); raises InputError if the model has no chat template for messages."""
        if record.prompt == "":
            return self._text_alone(record.completion)
        drawn = self._drawn(record)
        if drawn is not None:
            return self._not_empty(self.prompt_ids(record.prompt, record.tools)), drawn
        if isinstance(record.prompt, str):
            return self._pair(record.prompt, record.completion, add_bos=True)
        prompt = self._render(record.prompt, True, record.tools)
        return self._pair(prompt, thought_once(prompt, self._turn(record, prompt)), add_bos=False)

    def _turn(self, record: Record, prompt: str) -> str:
        """What the template writes of the completion behind ``prompt``, and the end of the turn if it shows."""
        whole = self._render(record.prompt + record.completion, False, record.tools)
        calls = [call for message in record.completion for call in message.get("tool_calls") or ()]
        if whole.startswith(prompt):
            turn = whole[len(prompt) :]
        elif calls:
            # the calls are what the template makes of them, behind what it begins a turn with
            before = self._render(record.prompt, False, record.tools)
            begun, turn = (text.removeprefix(before) for text in (prompt, whole))
            turn = turn[_common(begun, turn) :]
        else:
            # Some templates rewrite the last answer or open it with more than they keep (a thinking tag, say). What the
            # model would generate is then the bare answer after the generation prompt.
            turn = "".join(text_of(message) for message in record.completion)
        for call in calls:
            name = call.get("function", {}).get("name") if isinstance(call, dict) else None
            if not isinstance(name, str) or name not in turn:
                raise InputError(f"the model's chat template does not write the call of the tool {name}; leave it out")
        return turn

    def prompt_ids(self, prompt: str | Messages, tools: Tools | None = None) -> list[int]:
        """Return the ids of a prompt alone, text or chat messages, ready to generate from."""
        if isinstance(prompt, str):
            return self._ids(prompt, add_bos=True)
        return self._ids(self._render(prompt, True, tools), add_bos=False)

    def _drawn(self, record: Record) -> list[int] | None:
        """The tokens that were drawn as the completion, None unless they spell it in this vocabulary."""
        if record.completion_ids is None:
            return None
        is_text = isinstance(record.completion, str)
        if not is_text and (len(record.completion) > 1 or record.completion[0].get("tool_calls")):
            return None
        text = record.completion if is_text else text_of(record.completion[0])
        ids = list(record.completion_ids)
        end = next((i for i, token in enumerate(ids) if self._is_end(token)), len(ids))
        spelled = self._spelled(ids[:end])
        # an answer may be cut inside a letter
        is_spelled = spelled is not None and spelled.rstrip("\ufffd") == text.rstrip("\ufffd")
        return ids[: end + 1] if is_spelled else None

    @staticmethod
    def _not_empty(prompt_ids: list[int]) -> list[int]:
        if not prompt_ids:
            raise InputError("the prompt has no tokens, so nothing predicts the first token of the completion")
        return prompt_ids

    def _text_alone(self, text: str) -> tuple[list[int], list[int]]:
        """Return (prompt ids, completion ids) of a text without a prompt: what the model begins any text with, or the
        text's own first token, is the prompt."""
        ids = self._ids(text, add_bos=True)
        return ids[:1], self._ended(ids[1:])

    def _pair(self, prompt: str, completion: str, add_bos: bool) -> tuple[list[int], list[int]]:
        prompt_ids = self._not_empty(self._ids(prompt, add_bos))
        whole_ids = self._ids(prompt + completion, add_bos)
        if whole_ids[: len(prompt_ids)] == prompt_ids:
            ids = whole_ids[len(prompt_ids) :]
        else:
            # A token spans the boundary. When generating, the prompt's tokens are already fixed.
            ids = self._continuation_ids(completion)
        return prompt_ids, self._ended(ids)

    def _ended(self, ids: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(ids) if self._is_end(token)), None)
        if end is not None:
            return ids[: end + 1]
        eos = self._eos()
        return ids if eos is None or not self.append_end else [*ids, eos]

    def _continuation_ids(self, text: str) -> list[int]:
        # Behind a newline a SentencePiece vocabulary does not put the space that it puts in front of a text.
        before = self._ids("\n", add_bos=False)
        both = self._ids("\n" + text, add_bos=False)
        return both[len(before) :] if both[: len(before)] == before else self._ids(text, add_bos=False)

    def _ids(self, text: str, add_bos: bool) -> list[int]:
        raise NotImplementedError

    def _spelled(self, ids: list[int]) -> str | None:
        raise NotImplementedError

    def _is_end(self, token: int) -> bool:
        raise NotImplementedError

    def _eos(self) -> int | None:
        raise NotImplementedError

    def _render(self, messages: Messages, add_generation_prompt: bool, tools: Tools | None = None) -> str:
        raise NotImplementedError


def _common(begun: str, turn: str) -> int:
    """The length of what both begin with, whole tags only."""
    same = next((i for i, (a, b) in enumerate(zip(begun, turn, strict=False)) if a != b), min(len(begun), len(turn)))
    opened = begun.rfind("<", 0, same)
    return opened if same < len(begun) and opened > begun.rfind(">", 0, same) else same


_THOUGHT = re.compile(r"(?P<open><(?P<tag>[A-Za-z_]\w*)>)(?P<space>\s*)(?P<close></(?P=tag)>\s*)?\Z")


def thought_once(prompt: str, answer: str) -> str:
    """Return ``answer`` without the tag, such as <think>, that it begins with where ``prompt`` has opened it already.

    Where ``prompt`` has closed it too, as for models that are told not to think, the answer's thoughts go with it. A
    pair of tags with nothing in it, written by a template in front of those of the data, goes too.
    """
    answer = re.sub(r"\A\s*<(\w+)>\s*</\1>\s*(?=<\1>)", "", answer)
    opened = _THOUGHT.search(prompt[-200:])
    if not opened:
        return answer
    tag, begun = opened["tag"], answer.lstrip()
    if opened["close"]:
        return (
            re.sub(rf"\A<{tag}>.*?</{tag}>\s*", "", begun, flags=re.DOTALL)
            if begun.startswith(opened["open"])
            else answer
        )
    begun = re.sub(rf"\A</{tag}>\s*(?=<{tag}>)", "", begun)
    return (
        begun.removeprefix(opened["open"]).removeprefix(opened["space"]) if begun.startswith(opened["open"]) else answer
    )
