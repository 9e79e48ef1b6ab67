"""What states say of a command is read by one direction, and a head adds it to what it predicts."""

import pytest

torch = pytest.importorskip("torch")
from autodeco import Heads  # noqa: E402
from autodeco.steering.readout import Readout, install, readout  # noqa: E402

WIDTH = 12


def states(n: int, seed: int):
    """States whose numbers have sizes from 0.01 to 100 and hang together, and levels that one direction knows."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(9))
    level = torch.randint(-1, 2, (n,), generator=random).float()
    plain = torch.randn(n, WIDTH, generator=random)
    plain[:, 0] = 0.5 * level + plain[:, 0]
    return plain @ mixed * torch.logspace(-2, 2, WIDTH) + 3, level


def test_the_level_is_read_of_states_that_were_not_learned_from():
    hidden, level = states(4000, 0)
    read = readout(hidden, level, torch.ones(len(level)), 0.3)
    assert read(hidden).mean().abs() < 1e-3
    new, expected = states(4000, 1)
    assert torch.corrcoef(torch.stack([read(new), expected]))[0, 1] > 0.3  # the best is 0.38
    nothing = readout(hidden, level.flip(0), torch.ones(len(level)), 0.3)(new)
    assert torch.corrcoef(torch.stack([nothing, expected]))[0, 1].abs() < 0.15


def test_tokens_count_by_their_weight():
    hidden, level = states(2000, 0)
    wrong = torch.cat([level, -level])
    read = readout(torch.cat([hidden, hidden]), wrong, torch.cat([torch.ones(2000), torch.full((2000,), 1e-4)]), 0.3)
    alone = readout(hidden, level, torch.ones(2000), 0.3)
    assert torch.corrcoef(torch.stack([read(hidden), alone(hidden)]))[0, 1] > 0.99


def test_a_head_adds_what_is_read_and_is_else_as_it_was():
    torch.manual_seed(0)
    heads = Heads(WIDTH)
    torch.nn.init.normal_(heads.top_p_head.mlp[2].weight, std=0.3)
    mlp, inputs = heads.top_p_head.mlp, torch.randn(50, WIDTH + 5)
    with torch.no_grad():
        for unit in (4, 7):  # whose part does not vary
            mlp[0].weight[unit] = 0
            mlp[0].bias[unit] = 1
        before = mlp(inputs).squeeze(-1)
        read = Readout(torch.randn(WIDTH), torch.tensor(0.3))
        assert sorted(install(mlp, [read], inputs, gain=2.5).tolist()) == [4, 7]
        after = mlp(inputs).squeeze(-1)
    assert torch.allclose(after, before + 2.5 * read(inputs[:, :WIDTH]), atol=1e-4)


def test_more_units_read_and_add_nothing_until_they_have_learned():
    torch.manual_seed(0)
    mlp, inputs = Heads(WIDTH).temp_head.mlp, torch.randn(500, WIDTH)
    with torch.no_grad():
        before = mlp(inputs).squeeze(-1)
        reads = [Readout(torch.randn(WIDTH), torch.tensor(0.3)) for _ in range(2)]
        given = install(mlp, reads, inputs, gain=2.5, units=12)
        assert len(given) == 12
        assert torch.allclose(mlp(inputs).squeeze(-1), before + 2.5 * reads[0](inputs), atol=1e-4)
        active = (mlp[0](inputs)[:, given] > 0).float().mean(0)
    assert active.min() > 0.01
    assert active.max() < 0.99
    assert (
        len({(*row, b) for row, b in zip(mlp[0].weight[given].tolist(), mlp[0].bias[given].tolist(), strict=True)})
        == 12
    )
