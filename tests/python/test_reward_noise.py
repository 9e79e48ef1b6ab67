"""The noise on top-p with which training draws: answers have the distribution whose gradient the updates take."""

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from autodeco.batch import Sampling, answer, requests  # noqa: E402
from autodeco.errors import InputError  # noqa: E402
from autodeco.hugging_face.model import HuggingFaceModel  # noqa: E402
from autodeco.rewards.distributions import BLUR, compress, policy, token_atoms  # noqa: E402
from autodeco.rewards.hugging_face import HuggingFacePolicy  # noqa: E402
from autodeco.rewards.llama import LlamaPolicy  # noqa: E402
from autodeco.rewards.measuring import Static  # noqa: E402
from builders.hf_folders import write_tiny_smollm2  # noqa: E402

SETTING = Static(0.9, 0.7)
DRAWS = 2000


@pytest.fixture(scope="module", params=["llama.cpp", "transformers"])
def source(request, smollm2, tmp_path_factory):
    if request.param == "llama.cpp":
        return LlamaPolicy(smollm2, max_tokens=1, slots=8, device="cpu", threads=1)
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    write_tiny_smollm2(smollm2, folder)
    return HuggingFacePolicy(HuggingFaceModel(folder, "float32"), 1, 500, "cpu", "float32")


def expected_and_drawn(source, blur: float) -> tuple[np.ndarray, np.ndarray, set]:
    """(mass of each atom by the objective, draws of each, top-p that the answers tell) behind one prompt."""
    (answers,) = source.sample([source.prompt_ids("The capital of")], DRAWS, SETTING, 5, True, blur=blur)
    hidden = source.states(answers[0].states[:1])
    logits = source.logits(hidden)
    distributions = compress(logits)
    settings = (torch.tensor([value]) for value in (SETTING.temperature, SETTING.top_p))
    expected = policy(distributions, *settings, BLUR)[0].double().numpy()
    tokens = torch.tensor([int(each.tokens[0]) for each in answers])
    gaps = (logits.amax() - logits[0, tokens]).float()
    atoms = token_atoms(distributions[torch.zeros(DRAWS, dtype=torch.long)], gaps)
    told = {round(float(each.top_p[0]), 6) for each in answers}
    return expected, np.bincount(atoms, minlength=len(expected)), told


def p_value(expected: np.ndarray, drawn: np.ndarray) -> float:
    frequent = expected * DRAWS >= 5
    assert frequent.sum() >= 5, "the nucleus is too small to test anything"
    observed, wanted = (
        np.append(each[frequent], each[~frequent].sum()) for each in (drawn.astype(float), expected * DRAWS)
    )
    return stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue


def test_answers_with_noise_follow_the_blurred_distribution(source):
    expected, drawn, told = expected_and_drawn(source, BLUR)
    assert p_value(expected, drawn) > 1e-4
    assert told == {round(float(np.float32(SETTING.top_p)), 6)}, "the noise is not among what answers tell"


CONTROLS = ["llama.cpp", pytest.param("transformers", marks=pytest.mark.slow)]


@pytest.mark.parametrize("source", CONTROLS, indirect=True)
def test_answers_without_noise_do_not(source):
    expected, drawn, _ = expected_and_drawn(source, 0.0)
    assert p_value(expected, drawn) < 1e-6


def test_a_graph_has_no_noise(llm):
    wanted = requests(llm, ["The"], 1, Sampling(heads="none", top_p_blur=0.3), 1)
    with pytest.raises(InputError, match="a blurred top-p"):
        list(answer(llm, wanted, None))
