"""What the test came to: a gap to the validation, and how often the test part was opened."""

from collections.abc import Iterator

from hpo.results.findings import Finding, Subject, fine, unchecked, warning
from hpo.results.summary import interval_text, number
from hpo.results.values import LABELS
from hpo.search.status import OPENINGS

NOT_YET = "The study has not been finalized; its test part is sealed."


def gap(subject: Subject) -> Iterator[Finding]:
    """A test figure that the re-evaluation does not explain."""
    name, result, metric = "validation-test gap", subject.result, subject.config.metric
    if result is None:
        yield unchecked(name, NOT_YET)
        return
    mean, validated = result.winner.mean, result.winner.interval
    value, tested = result.test.scalars().get(metric), result.test.interval(metric)
    if mean is None or validated is None or value is None or tested is None:
        yield unchecked(name, f"The {LABELS[metric]} has no interval, in the re-evaluation or in the test.")
        return
    evidence = {
        "validation": mean,
        "validation_interval": list(validated),
        "test": value,
        "test_interval": list(tested),
    }
    text = (
        f"The winner's {LABELS[metric]} is {number(metric, mean)} re-evaluated (95 %: "
        f"{interval_text(metric, validated)}) and {number(metric, value)} in the test (95 %: "
        f"{interval_text(metric, tested)})"
    )
    if validated[0] <= tested[1] and tested[0] <= validated[1]:
        yield fine(name, f"{text}: they agree within their intervals.", **evidence)
        return
    better = (value > mean) == (subject.config.direction == "maximize")
    advice = (
        "The test part may be easier than the rest, or hold examples of the training part."
        if better
        else "The test part may come from elsewhere than the rest: another time, place or kind. The search "
        "may also have fitted the validation part; folds make that harder."
    )
    word = "better" if better else "worse"
    yield warning(name, f"{text}: the test is {word} by more than both explain.", advice, **evidence)


def openings(subject: Subject) -> Iterator[Finding]:
    """Each look at the test part after the first makes its figures less fresh."""
    name, times = "test openings", [opening["time"] for opening in subject.attrs.get(OPENINGS, [])]
    evidence = {"openings": times}
    if not times:
        yield fine(name, "The test part was never opened.", **evidence)
    elif len(times) == 1:
        yield fine(name, f"The test part was opened once, at {times[0]}.", **evidence)
    else:
        yield warning(
            name,
            f"The test part was opened {len(times)} times, at {', '.join(times)}: what was decided after the "
            "first time may have followed its result.",
            "Report the first result, or test on new data.",
            **evidence,
        )
