"""Hidden states of a decoder, whose rows are refilled, moved and of any lengths, are those of a whole pass."""

import os

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from autodeco.errors import InputError  # noqa: E402
from autodeco.hugging_face import decoder as decoding  # noqa: E402
from autodeco.hugging_face.decoder import Decoder  # noqa: E402
from builders.transformers_models import FAMILIES, PROMPTS, tiny, whole  # noqa: E402


class Rows:
    """A decoder whose rows are told apart by what they have been given."""

    def __init__(self, model, rows: int = 6, length: int = 64):
        self.model, self.decoder = model, Decoder(model, rows, length)
        self.given: dict[int, list[int]] = {}
        self.generator = torch.Generator().manual_seed(1)

    def admit(self, owners: dict[int, int], prompts=PROMPTS) -> None:
        prefilled = self.decoder.prefill(prompts)
        rows, places = (torch.tensor(part) for part in (list(owners), list(owners.values())))
        self.decoder.admit(rows, prefilled, places)
        self.given |= {row: list(prompts[owner]) for row, owner in owners.items()}

    def step(self, rows: int, running: list[int]) -> None:
        tokens = torch.randint(10, 300, (rows,), generator=self.generator)
        self.decoder.step(tokens, torch.tensor([row in running for row in range(rows)]))
        for row in running:
            self.given[row].append(int(tokens[row]))

    def check(self, atol: float = 1e-9) -> None:
        for row, tokens in self.given.items():
            torch.testing.assert_close(
                self.decoder.hidden[row],
                whole(self.model, tokens)[-1],
                rtol=0,
                atol=atol,
                msg=lambda m, r=row: f"{r}: {m}",
            )


def run(rows: Rows, atol: float = 1e-9) -> None:
    """Rows of different lengths, some of which stop, leave, are filled again, and move."""
    rows.admit({0: 2, 1: 0, 4: 1, 5: 1})
    rows.check(atol)
    for _ in range(3):
        rows.step(6, [0, 1, 4, 5])
        rows.check(atol)
    for _ in range(2):
        rows.step(6, [1, 5])  # the two others wait; what their rows append is forgotten
    rows.given.pop(4)
    rows.decoder.release(torch.tensor([4]))
    rows.step(6, [0, 1, 5])
    rows.admit({2: 0, 4: 3}, PROMPTS[:4])
    rows.step(6, [0, 1, 2, 4, 5])
    rows.check(atol)
    rows.given.pop(2)
    rows.given.pop(0)
    rows.decoder.move(torch.tensor([4, 5]), torch.tensor([2, 0]))
    rows.given[2], rows.given[0] = rows.given.pop(4), rows.given.pop(5)
    for _ in range(3):
        rows.step(3, [0, 1, 2])
        rows.check(atol)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_rows_are_as_a_whole_pass(family):
    run(Rows(tiny(family)), atol=1e-5 if family == "gemma2" else 1e-9)  # whose softmax is float32


def test_the_attention_kernel_sees_the_same(monkeypatch):
    pytest.importorskip("triton", reason="triton, which has wheels for Linux on x86-64 only, is not installed")
    if os.environ["TRITON_INTERPRET"] != "1":
        pytest.skip("the model is on the CPU")
    from autodeco.hugging_face import slot_attention_triton

    calls, attend = [], slot_attention_triton.attend
    monkeypatch.setattr(slot_attention_triton, "attend", lambda *given: calls.append(given) or attend(*given))
    monkeypatch.setattr(slot_attention_triton, "BLOCK", 256)  # 16 keys
    monkeypatch.setattr(decoding, "kernel_fits", lambda layers: True)
    rows = Rows(tiny(dtype=torch.float32))
    run(rows, atol=2e-5)
    assert len(calls) == 10 * 2  # steps, layers
    assert rows.model.network.config._attn_implementation == "sdpa"


def test_attention_that_asks_for_more_than_the_kernel_knows_is_the_models_own(monkeypatch):
    from autodeco.hugging_face import slot_attention_triton

    monkeypatch.setattr(slot_attention_triton, "attend", lambda *given: pytest.fail("it was called"))
    monkeypatch.setattr(decoding, "kernel_fits", lambda layers: True)
    run(Rows(tiny("gemma2")), atol=1e-5)  # attention's logits are capped


def test_no_logits_are_computed():
    rows, read = Rows(tiny()), []
    rows.model.network.get_output_embeddings().register_forward_pre_hook(lambda _, x: read.append(x[0].shape[1]))
    rows.admit({0: 0})
    rows.step(6, [0])
    assert read == [0, 0]


def test_layers_that_forget_are_refused():
    model = tiny("qwen2", use_sliding_window=True, sliding_window=48, max_window_layers=0)
    with pytest.raises(
        InputError, match=r"tiny: not every layer keeps the keys and values of 64 tokens.*draw with llama"
    ):
        Decoder(model, 2, 64).prefill([[5] * 10])
    rows = Rows(model, length=48)
    run(rows)
