"""Loading a checkpoint that describes itself."""

import pytest
import torch

from kitlib.errors import KitError
from kitlib.predict.models import load_model, load_models


def test_the_model_comes_back_as_it_was(checkpoint, network):
    model, categories = load_model(checkpoint)
    assert categories == ("astro", "cort", "shsy5y")
    assert not model.training
    back = model.state_dict()
    assert back.keys() == network.state_dict().keys()
    assert all(torch.equal(tensor, back[name]) for name, tensor in network.state_dict().items())


def test_averaged_weights_are_preferred(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    name = "roi_heads.box_predictor.0.cls_score.bias"
    content["ema"] = content["model"] | {name: torch.full_like(content["model"][name], 5.0)}
    torch.save(content, tmp_path / "w.pth")
    assert (load_model(tmp_path / "w.pth").model.state_dict()[name] == 5).all()


def changed(content, **changes):
    return {k: v for k, v in (content | changes).items() if v is not None}


def without(tensors, part):
    return {name: tensor for name, tensor in tensors.items() if part not in name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: changed(c, categories=["cell"]), "names 1 categories for 3 classes"),
        (lambda c: changed(c, model_config=None), "does not say which model"),
        (lambda c: changed(c, model_config=c["model_config"] | {"preset": "tyni"}), "did you mean 'tiny'"),
        (
            lambda c: changed(c, model_config=c["model_config"] | {"preset": "r50"}),
            r"does not fit that model .missing from the file: .* of another shape: ",
        ),
        (
            lambda c: changed(c, model=without(c["model"], "fpn_lateral")),
            r"file: backbone\.fpn_lateral2\.weight and 11 more.; train again",
        ),
        (lambda c: [c], "does not say which model"),
    ],
)
def test_what_does_not_fit_is_refused(checkpoint, tmp_path, change, message):
    torch.save(change(torch.load(checkpoint, weights_only=True)), tmp_path / "w.pth")
    with pytest.raises(KitError, match=message):
        load_model(tmp_path / "w.pth")


def test_missing_cut_short_and_dangerous_files(checkpoint, tmp_path):
    with pytest.raises(KitError, match="does not exist"):
        load_model(tmp_path / "none.pth")
    (tmp_path / "short.pth").write_bytes(checkpoint.read_bytes()[:100_000])
    with pytest.raises(KitError, match=r"short\.pth cannot be read"):
        load_model(tmp_path / "short.pth")
    torch.save({"model": len}, tmp_path / "code.pth")
    with pytest.raises(KitError, match=r"code\.pth is refused: loading it would run len"):
        load_model(tmp_path / "code.pth")


def test_an_ensemble_is_of_the_same_types(checkpoint, other_checkpoints):
    second, one_class = other_checkpoints
    models, categories = load_models([checkpoint, second])
    assert len(models) == 2
    assert categories == ("astro", "cort", "shsy5y")
    with pytest.raises(KitError, match=r"second\.pth knows the types astro.*one_class\.pth knows cell"):
        load_models([second, one_class])
