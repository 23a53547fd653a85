"""What the processes of a training do alone; together they are tested in test_job."""

import pytest
import torch
from torch import nn

from kitlib.errors import KitError
from kitlib.train import processes
from kitlib.train.processes import Processes

CPU = torch.device("cpu")


def test_one_process_talks_to_itself():
    alone = Processes(0, 1, CPU)
    assert alone.main
    assert alone.gather("x") == ["x"]
    assert alone.share({"a": 1}) == {"a": 1}
    assert alone.mean(torch.tensor([1.0, 2.0])) == [1.0, 2.0]
    assert not Processes(1, 2, CPU).main


def test_memory_is_in_gibibytes():
    assert 0.05 < Processes(0, 1, CPU).memory()["host_gib"] < 500


@pytest.mark.parametrize(("world", "kind"), [(1, "BatchNorm2d"), (2, "NaiveSyncBatchNorm")])
def test_a_synchronised_batch_norm_works_on_the_cpu(world, kind):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.SyncBatchNorm(2)))
    with torch.no_grad():
        model[1][0].running_mean.fill_(3.0)
        model[1][0].weight.fill_(2.0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fitted = Processes(0, world, CPU).fit_batch_norm(model)
    assert type(fitted[1][0]).__name__ == kind
    assert all(torch.equal(tensor, state[name]) for name, tensor in fitted.state_dict().items())
    assert fitted.eval()(torch.zeros(1, 1, 2, 2)).shape == (1, 2, 2, 2)


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setenv("KIT_GPUS", "64")
    with pytest.raises(KitError, match="64 GPUs were asked for, but PyTorch sees"), processes.join():
        pass
