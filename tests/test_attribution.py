"""Attributions, of any module: they find a planted truth, and say what they cannot do."""

import pytest
import torch
import torch.nn.functional as F
from explain_example import SPOTS, Blocked, Functional, convolutional, in_patch, perceptron, pictures, trained
from torch import Tensor, nn

from hpo.results.attribution import Method, Methods, methods, outputs_of
from hpo.results.class_pictures import maximal, mean_by_group
from hpo.results.sanity import LIMIT, check_sanity, randomized, rank_correlation
from hpo.results.subject import background, spread
from hpo.results.tracing import LastConvolution, layers_from_the_output

IMAGES, KINDS = pictures(30, seed=2)
NOTHING = background(IMAGES)


def found(module: nn.Module) -> Methods:
    return methods(module, IMAGES[:2], NOTHING)


def named(module: nn.Module, name: str) -> Method:
    return next(method for method in found(module).possible if method.name == name)


def hits(attributions: Tensor) -> float:
    """In what share of the pictures the strongest pixel is in the patch."""
    strongest = attributions.flatten(1).argmax(1).tolist()
    right = [in_patch(place, int(kind)) for place, kind in zip(strongest, KINDS, strict=True)]
    return sum(right) / len(right)


@pytest.mark.slow
@pytest.mark.parametrize("make", [convolutional, Functional], ids=["layers", "functional"])
@pytest.mark.parametrize("name", ["Integrated gradients", "Grad-CAM", "Occlusion"])
def test_the_patch_that_decides_is_found_by_every_method(make: type[nn.Module], name: str) -> None:
    module = trained(make)
    before = IMAGES.clone()
    attributions = named(module, name).attribute(module, IMAGES, KINDS)
    assert attributions.shape == IMAGES.shape and hits(attributions) > 0.85
    assert torch.equal(IMAGES, before), "although the module changes its input in place"


def test_integrated_gradients_add_up_to_the_difference_of_outputs() -> None:
    module = trained(convolutional)
    attributions = named(module, "Integrated gradients").attribute(module, IMAGES, KINDS)
    reached = outputs_of(module, IMAGES) - outputs_of(module, NOTHING[None])
    torch.testing.assert_close(
        attributions.flatten(1).sum(1), reached.gather(1, KINDS[:, None])[:, 0], rtol=0.05, atol=0.2
    )


def test_a_module_without_convolutions_has_no_grad_cam_and_says_so() -> None:
    module = trained(perceptron)
    answer = found(module)
    assert [method.name for method in answer.possible] == ["Integrated gradients", "Occlusion"]
    assert answer.impossible == (
        "Grad-CAM: the model has no two-dimensional convolution over more than one pixel.",
    )
    assert all(hits(method.attribute(module, IMAGES, KINDS)) > 0.85 for method in answer.possible)


def test_a_module_that_is_not_differentiable_is_explained_by_covering() -> None:
    module = Blocked(trained(convolutional))
    answer = found(module)
    assert [method.name for method in answer.possible] == ["Occlusion"] and not answer.differentiable
    assert [text.split(":")[0] for text in answer.impossible] == ["Integrated gradients", "Grad-CAM"]
    assert all("is not differentiable" in text for text in answer.impossible)
    assert hits(answer.possible[0].attribute(module, IMAGES, KINDS)) > 0.85


def test_gradients_that_are_all_zero_count_as_none() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).sign()[:, :3]

    assert "are all 0" in found(Steps()).impossible[0]


def test_the_last_convolution_is_taken_with_what_follows_it_but_not_that_of_one_pixel() -> None:
    class Excited(nn.Module):
        """With batch norm, a sum and squeeze-and-excitation behind the convolution."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.norm, self.squeeze, self.out = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.first(x))
            self.last = F.relu(x + self.norm(self.second(x)))
            gate = self.squeeze(self.last.mean((2, 3), keepdim=True)).sigmoid()
            return self.out((self.last.mean((2, 3), keepdim=True) * gate).flatten(1))

    module = Excited().eval()
    with LastConvolution() as last:
        module(IMAGES)
    assert last.found is module.last


def test_layers_are_ordered_by_use_and_not_by_their_names() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(8, 3), nn.Linear(144, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x.flatten(1)).relu())

    module = Backwards()
    groups = layers_from_the_output(module, IMAGES)
    assert groups[0][0] is module.last.weight and groups[1][0] is module.first.weight
    assert [len(group) for group in groups] == [2, 2]


# --- sanity


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Integrated gradients", "Grad-CAM", "Occlusion"])
def test_methods_that_see_the_model_pass_and_leave_it_as_it_was(name: str) -> None:
    module = trained(convolutional)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    check = check_sanity(module, named(module, name), IMAGES, KINDS)
    assert check is not None and check.passed and check.final < LIMIT
    assert check.layers == (1, 2, 3)
    assert all(torch.equal(tensor, before[key]) for key, tensor in module.state_dict().items())
    assert not any(part.training for part in module.modules())


def test_an_edge_detector_fails_since_it_ignores_the_weights() -> None:
    def edges(_module: nn.Module, inputs: Tensor, _wanted: Tensor) -> Tensor:
        kernel = torch.tensor([[[[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]]])
        return F.conv2d(inputs, kernel, padding=1).abs()

    check = check_sanity(trained(convolutional), Method("Edges", False, edges), IMAGES, KINDS)
    assert check is not None and not check.passed
    assert check.correlations == pytest.approx([1.0] * 3)


def test_a_model_without_weights_is_not_checked() -> None:
    flat = nn.Flatten()
    assert check_sanity(flat, Method("any", True, lambda *_: IMAGES), IMAGES, KINDS) is None


def test_random_weights_have_the_size_of_the_learned_ones_and_differ_by_seed() -> None:
    module = trained(convolutional)
    groups = layers_from_the_output(module, IMAGES[:2])
    learned = module[-1].weight.detach().clone()
    drawn = []
    for seed in (0, 1):
        with randomized(module, groups[:1], IMAGES, seed):
            drawn.append(module[-1].weight.detach().clone())
            assert not torch.equal(module[0].weight, torch.zeros_like(module[0].weight))
    assert drawn[0].std().item() == pytest.approx(learned.square().mean().sqrt().item(), rel=0.15)
    assert not torch.equal(*drawn) and torch.equal(module[-1].weight, learned)


def test_rank_correlation_leaves_out_what_neither_attributes_to() -> None:
    one = torch.zeros(1, 100)
    other = one.clone()
    one[0, :4], other[0, :4] = torch.tensor([1.0, 2, 3, 4]), torch.tensor([4.0, 3, 2, 1])
    assert rank_correlation(one, other) == pytest.approx(-1)
    assert rank_correlation(one, one) == pytest.approx(1)
    assert rank_correlation(one, torch.zeros_like(one)) == 0


# --- pictures of classes


def test_mean_attributions_and_maximising_pictures_show_the_patch_of_each_class() -> None:
    module = trained(convolutional)
    towards = named(module, "Integrated gradients").attribute(module, IMAGES, KINDS)
    means = mean_by_group(towards, KINDS, len(SPOTS) + 1)
    assert means[-1] is None
    greatest = maximal(module, IMAGES, NOTHING, len(SPOTS))
    for kind, (down, right) in enumerate(SPOTS):
        mean, picture = means[kind], greatest.pictures[kind]
        assert mean is not None and in_patch(int(mean.argmax()), kind)
        patch = picture[0, down : down + 3, right : right + 3]
        assert patch.mean() > picture.mean() + 0.1
    assert min(greatest.scores) > 0.9
    assert greatest.pictures.min() >= IMAGES.min() and greatest.pictures.max() <= IMAGES.max()


def test_examples_are_drawn_evenly_from_all_classes() -> None:
    classes = torch.tensor([0] * 90 + [1] * 8 + [2] * 2)
    chosen = classes[spread(classes, 12)]
    assert torch.bincount(chosen).tolist() == [5, 5, 2]
    assert torch.equal(spread(classes, 1000), torch.arange(100))
