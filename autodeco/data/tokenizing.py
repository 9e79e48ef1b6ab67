"""From a record to token ids, exactly as the same text would reach the model when it generates."""

from autodeco.data.messages import Messages
from autodeco.data.records import Record
from autodeco.errors import InputError


class RecordTokenizer:
    """Turns records into (prompt ids, completion ids) with a model's own vocabulary and chat template.

    The prompt gets the ids that it gets for generating: special tokens recognised, and a beginning-of-text token in
    front of plain text if the model wants one (a chat template writes its own). The completion gets the ids that follow
    those of the prompt when both are tokenized as one text, so a word that spans no boundary is split as in running
    text. It ends with the end-of-generation token: of the template, or the model's end-of-text token if ``append_end``
    and the text has none. What a template writes after that token, the model never generates.

    Vocabularies differ in the four methods at the end.
    """

    append_end = True

    def __call__(self, record: Record) -> tuple[list[int], list[int]]:
        """Return (prompt ids, completion ids); raises InputError if the model has no chat template for messages."""
        if record.prompt == "":
            return self._text_alone(record.completion)
        if isinstance(record.prompt, str):
            return self._pair(record.prompt, record.completion, add_bos=True)
        prompt = self._render(record.prompt, add_generation_prompt=True)
        whole = self._render(record.prompt + record.completion, add_generation_prompt=False)
        if whole.startswith(prompt):
            return self._pair(prompt, whole[len(prompt) :], add_bos=False)
        # Some templates rewrite the last answer or open it with more than they keep (a thinking tag, say). What the
        # model would generate is then the bare answer after the generation prompt.
        answer = "".join(str(message["content"]) for message in record.completion)
        return self._pair(prompt, answer, add_bos=False)

    def prompt_ids(self, prompt: str | Messages) -> list[int]:
        """Return the ids of a prompt alone, text or chat messages, ready to generate from."""
        if isinstance(prompt, str):
            return self._ids(prompt, add_bos=True)
        return self._ids(self._render(prompt, add_generation_prompt=True), add_bos=False)

    def _text_alone(self, text: str) -> tuple[list[int], list[int]]:
        """Return (prompt ids, completion ids) of a text without a prompt: what the model begins any text with, or the
        text's own first token, is the prompt."""
        ids = self._ids(text, add_bos=True)
        return ids[:1], self._ended(ids[1:])

    def _pair(self, prompt: str, completion: str, add_bos: bool) -> tuple[list[int], list[int]]:
        prompt_ids = self._ids(prompt, add_bos)
        if not prompt_ids:
            raise InputError("the prompt has no tokens, so nothing predicts the first token of the completion")
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

    def _is_end(self, token: int) -> bool:
        raise NotImplementedError

    def _eos(self) -> int | None:
        raise NotImplementedError

    def _render(self, messages: list[dict], add_generation_prompt: bool) -> str:
        raise NotImplementedError
