"""One step: pieces add up to the whole, and what goes wrong leaves nothing behind."""

import copy
import math

import pytest
import torch
from torch import nn

from kitlib.errors import KitError
from kitlib.train.processes import Processes
from kitlib.train.step import Stepper

ALONE = Processes(rank=0, world=1, device=torch.device("cpu"))


class Toy(nn.Module):
    """A loss that is a mean over images, as detectron2's are, with a BatchNorm in it."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 1), nn.BatchNorm1d(3) if norm else nn.Identity()
        self.memory = math.inf  # largest batch that fits

    def forward(self, batch):
        if len(batch) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        x = torch.stack([sample["image"].mean((1, 2)) for sample in batch])
        if x.isinf().any():
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN. Training has diverged.")
        y = self.layer(self.norm(x))
        return {"loss_a": (y**2).mean(), "loss_b": y.abs().mean()}


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy()


def batch(count=4, seed=1, shape=(3, 1, 1)):
    torch.manual_seed(seed)
    return [{"image": torch.randn(shape), "image_id": f"im{i}"} for i in range(count)]


def stepper(model, **options):
    return Stepper(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), ALONE, **options)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_losses_and_step_are_pytorchs(toy):
    twin = copy.deepcopy(toy)
    outcome = stepper(toy)(batch())
    losses = twin(batch())
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    sum(losses.values()).backward()
    optimizer.step()
    assert outcome.losses == pytest.approx({k: v.item() for k, v in losses.items()})
    assert outcome.total_loss == pytest.approx(sum(outcome.losses.values()))
    assert outcome.grad_norm == pytest.approx(math.hypot(*[p.grad.norm() for p in twin.parameters()]))
    assert torch.allclose(weights(toy), weights(twin))
    assert outcome.applied
    assert toy.layer.weight.grad is None


def test_accumulated_pieces_add_up_to_the_whole(toy):
    twin = copy.deepcopy(toy)
    whole, pieces = stepper(toy)(batch()), stepper(twin, accumulate=4)(batch())
    assert pieces.losses == pytest.approx(whole.losses)
    assert torch.allclose(weights(toy), weights(twin))


def test_clipping_bounds_the_step(toy):
    before = weights(toy)
    outcome = stepper(toy, clip_norm=0.01)(batch())
    assert outcome.grad_norm > 0.01
    assert (weights(toy) - before).norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_a_number_leaves_everything_as_it_was(bad):
    toy = Toy(norm=True)
    step = stepper(toy)
    step(batch())
    before, momentum = copy.deepcopy(toy.state_dict()), copy.deepcopy(step.state_dict())
    broken = batch(seed=2)
    broken[1]["image"][0] = bad
    outcome = step(broken)
    assert outcome.faulty == ("im0", "im1", "im2", "im3")
    assert not outcome.applied
    assert math.isnan(outcome.total_loss)
    for name, tensor in toy.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # the running statistics too
    after = step.state_dict()["optimizer"]["state"]
    for key, state in momentum["optimizer"]["state"].items():
        assert torch.equal(after[key]["momentum_buffer"], state["momentum_buffer"])
    assert step(batch()).applied


def test_a_gradient_that_is_not_a_number_is_no_step_either(toy):
    toy.layer.weight.register_hook(lambda grad: grad * math.nan)
    before = weights(toy)
    outcome = stepper(toy)(batch())
    assert outcome.faulty == ("im0", "im1", "im2", "im3")
    assert torch.equal(weights(toy), before)


def test_out_of_memory_names_the_images_the_memory_and_the_parameters(toy):
    toy.memory = 3
    before = weights(toy)
    sentence = (
        r"^out of memory on the images im0 \(4 x 6\), im1 \(4 x 6\), im2 \(4 x 6\), im3 \(4 x 6\); "
        r"this process has taken up to \d+\.\d of the machine's \d+\.\d GiB\. Lower images_per_batch, "
        r"raise accumulate \(now 1\), make augment\.crop or augment\.scale smaller, or set amp to bf16$"
    )
    with pytest.raises(KitError, match=sentence):
        stepper(toy)(batch(shape=(3, 4, 6)))
    assert torch.equal(weights(toy), before)
    assert stepper(toy, accumulate=2)(batch(shape=(3, 4, 6))).applied
    with pytest.raises(KitError, match=r"augment\.crop or augment\.scale smaller$"):
        stepper(toy, amp="bf16")(batch(shape=(3, 4, 6)))


def test_bf16_is_near_and_fp16_finds_its_scale(toy):
    twin, exact = copy.deepcopy(toy), copy.deepcopy(toy)
    reference = stepper(exact)(batch())
    bf16 = stepper(toy, amp="bf16")(batch())
    assert bf16.losses == pytest.approx(reference.losses, rel=0.02)
    assert toy.layer.weight.dtype == torch.float32
    fp16 = stepper(twin, amp="fp16")
    fp16.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # far too large: the gradients overflow
    outcomes = [fp16(batch()) for _ in range(40)]
    assert not outcomes[0].applied
    assert outcomes[0].faulty == ()  # the scaler's business, no fault of the images
    assert outcomes[-1].applied
    assert fp16.scaler.get_scale() < 2.0**40
    assert not torch.equal(weights(twin), weights(exact))
