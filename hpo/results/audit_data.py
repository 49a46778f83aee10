"""Leakage: the same examples in two parts. Digests tell, which were taken when the test part was sealed."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hpo.data.cache import load_digests
from hpo.data.digests import Digests, Hashes
from hpo.results.findings import Finding, Subject, counted, fine, unchecked, warning

ADVICE = (
    "If they are one example twice, remove the copies from the raw data; if few values make rows equal by "
    "chance, as with a few categories, they are no leak."
)


def sealed_leakage(subject: Subject) -> Iterator[Finding]:
    """Test examples that the model was trained on, or chosen by."""
    name, digests = "test leakage", _digests(subject)
    if digests is None:
        yield _no_data(name, subject)
        return
    seen = np.isin(digests.test.examples, digests.rows.examples)
    alike = np.isin(digests.test.features, digests.rows.features) & ~seen
    total, both, other = len(seen), int(seen.sum()), int(alike.sum())
    evidence = {"test_examples": total, "identical": both, "identical_with_another_target": other}
    if both + other == 0:
        yield fine(name, f"None of {counted(total, 'test example')} is in the other parts too.", **evidence)
        return
    more = f", and {other} more with another target" if other else ""
    yield warning(
        name,
        f"{both} of {counted(total, 'test example')} ({both / total:.1%}) "
        f"{_stand(both)} in the training or validation part too, target included{more}: the test figures "
        "may be too good.",
        ADVICE,
        **evidence,
    )


def validation_leakage(subject: Subject) -> Iterator[Finding]:
    """Validation examples that the same trial was trained on."""
    name, digests = "validation leakage", _digests(subject)
    if digests is None:
        yield _no_data(name, subject)
        return
    held_out = digests.fold >= 0
    leaked = int(_leaked(digests)[held_out].sum())
    total = int(held_out.sum())
    evidence = {"validation_examples": total, "identical": leaked}
    if not leaked:
        yield fine(
            name, f"None of {counted(total, 'validation example')} is in its training part too.", **evidence
        )
        return
    yield warning(
        name,
        f"{leaked} of {counted(total, 'validation example')} ({leaked / total:.1%}) {_stand(leaked)} in the "
        "training part too, target included: trials that memorize look better than they are.",
        ADVICE,
        **evidence,
    )


def contradicting_targets(subject: Subject) -> Iterator[Finding]:
    """Identical features with different targets: no model can be right on all of them."""
    name, digests = "contradicting targets", _digests(subject)
    if digests is None:
        yield _no_data(name, subject)
        return
    features = np.concatenate([digests.rows.features, digests.test.features])
    examples = np.concatenate([digests.rows.examples, digests.test.examples])
    count, total = int(_contradicting(features, examples).sum()), len(features)
    evidence = {"examples": total, "contradicting": count}
    if not count:
        yield fine(name, "No two examples with identical features have different targets.", **evidence)
        return
    yield warning(
        name,
        f"{count} of {counted(total, 'example')} ({count / total:.1%}) have the features of another one, but "
        "not its target: no model can be right on all of them.",
        "Look at their labels; or features that tell them apart are missing.",
        **evidence,
    )


def _digests(subject: Subject) -> Digests | None:
    return None if subject.prepared is None else load_digests(subject.prepared)


def _no_data(name: str, subject: Subject) -> Finding:
    return unchecked(name, f"The data are not at hand: {subject.no_data}")


def _stand(count: int) -> str:
    return "is" if count == 1 else "are"


def _leaked(digests: Digests) -> NDArray[np.bool_]:
    """[R] whether an equal example trains where this one validates: one of another fold, or of none."""
    _, group = np.unique(digests.rows.examples, return_inverse=True)
    pairs = np.unique(np.stack([group, digests.fold.astype(np.int64)]), axis=1)
    folds_of_group = np.bincount(pairs[0])
    leaked: NDArray[np.bool_] = folds_of_group[group] > 1
    return leaked


def _contradicting(features: Hashes, examples: Hashes) -> NDArray[np.bool_]:
    """[N] whether examples with these features have more than one target."""
    _, group = np.unique(features, return_inverse=True)
    _, place = np.unique(examples, return_index=True)
    several: NDArray[np.bool_] = np.bincount(group[place], minlength=int(group.max()) + 1)[group] > 1
    return several
