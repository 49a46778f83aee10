"""Pictures of an explanation, class by class, with the words that stand in for them."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from hpo.results.explain import Explanation
from hpo.results.explain_text import picture_sentence
from hpo.results.heatmaps import Easel, strongest_ninth
from hpo.results.shown import ConfusedPair, Shown

MAX_CARDS = 100
"""Classes with pictures: those with the most examples."""


@dataclass(frozen=True)
class Drawing:
    """A picture with its label."""

    label: str
    png: str
    """In base64."""
    alt: str


@dataclass(frozen=True)
class Row:
    """Pictures side by side."""

    title: str
    drawings: tuple[Drawing, ...]


@dataclass(frozen=True)
class Card:
    """One class, or the number that is predicted, or a pair of classes."""

    title: str
    text: str
    rows: tuple[Row, ...]


class Cards:
    """Draws the cards of an explanation of pictures."""

    def __init__(self, found: Explanation) -> None:
        self.found = found
        self.subject = found.subject
        self.names = found.subject.outputs_named
        self.easel = Easel(found.subject)

    def of_classes(self) -> list[Card]:
        """One for each output with examples or, of more than `MAX_CARDS`, for those with the most."""
        counts = self.found.by_class.counts
        most = sorted(range(len(counts)), key=lambda output: -counts[output])[:MAX_CARDS]
        return [self._card(output) for output in sorted(most)]

    def of_pairs(self) -> list[Card]:
        """One for each pair of confused classes."""
        return [self._pair(pair) for pair in self.found.pairs]

    def _card(self, output: int) -> Card:
        whole = "the whole class" if self.subject.classes else "all examples"
        rows = [Row(whole, drawings)] if (drawings := tuple(self._whole(output))) else []
        rows += [self._example(shown) for shown in self.found.shown.get(output, [])]
        return Card(self.names[output], picture_sentence(self.found, output), tuple(rows))

    def _whole(self, output: int) -> Iterator[Drawing]:
        mean, example = self.found.by_class.means[output], self.found.by_class.inputs[output]
        name = self.names[output]
        if example is not None:
            yield Drawing("mean example", self.easel.picture(example), f"the mean example of {name}")
        if mean is not None:
            label = f"mean attribution ({self.found.by_class.method})"
            yield self._heat(label, mean, f"mean attribution towards {name}", example)
        if self.found.maximal is not None:
            score = self.found.maximal.scores[output]
            says = f"probability {score:.2f}" if self.subject.classes else f"predicted {score:.4g}"
            picture = self.easel.picture(self.found.maximal.pictures[output])
            yield Drawing(
                f"maximises it ({says})", picture, f"a picture made to maximise {name}; the model says {says}"
            )

    def _example(self, shown: Shown) -> Row:
        subject, row = self.subject, shown.row
        if not subject.classes:
            title = f"predicted {float(subject.predicted[row]):.4g}"
            if subject.targets is not None:
                title += f", true {float(subject.targets[row]):.4g}"
            return Row(title, tuple(self._maps(shown, title)))
        taken, sure = self.names[shown.explained], float(subject.probabilities[row, shown.explained])
        said = {None: f"taken for {taken}", True: "right", False: f"wrong, taken for {taken}"}[shown.right]
        title = f"{said} (probability {sure:.2f})"
        return Row(title, tuple(self._maps(shown, title)))

    def _maps(self, shown: Shown, title: str) -> Iterator[Drawing]:
        example = self.subject.features[shown.row]
        yield Drawing("example", self.easel.picture(example), f"example {shown.row + 1}: {title}")
        towards = self.names[shown.explained]
        for method, attribution in shown.maps.items():
            yield self._heat(method, attribution, f"{method}, towards {towards}", example)
        if shown.for_truth is not None and self.subject.classes:
            true = self.names[int(self.subject.groups[shown.row])]
            method = next(iter(shown.maps))
            yield self._heat(f"for {true}", shown.for_truth, f"{method}, towards {true}", example)

    def _pair(self, pair: ConfusedPair) -> Card:
        true, taken = self.names[pair.true], self.names[pair.predicted]
        drawings = [*self._typical(pair.true), *self._between(pair), *self._typical(pair.predicted)]
        return Card(
            f"{true} taken for {taken}",
            f"{pair.count} of {pair.of} examples of {true}.",
            (Row("", tuple(drawings)),),
        )

    def _typical(self, output: int) -> Iterator[Drawing]:
        for shown in self.found.shown.get(output, []):
            if shown.right:
                picture = self.easel.picture(self.subject.features[shown.row])
                name = self.names[output]
                yield Drawing(f"a right {name}", picture, f"an example of {name} that is recognized")

    def _between(self, pair: ConfusedPair) -> Iterator[Drawing]:
        example, shown = self.subject.features[pair.example.row], pair.example
        true, taken = self.names[pair.true], self.names[pair.predicted]
        yield Drawing(
            f"{true} taken for {taken}",
            self.easel.picture(example),
            f"an example of {true} taken for {taken}",
        )
        if not shown.maps:
            return
        method, for_taken = next(iter(shown.maps.items()))
        yield self._heat(f"for {taken}", for_taken, f"{method}, towards {taken}", example)
        if shown.for_truth is not None:
            yield self._heat(f"for {true}", shown.for_truth, f"{method}, towards {true}", example)

    def _heat(self, label: str, attribution: Tensor, what: str, over: Tensor | None) -> Drawing:
        place = strongest_ninth(attribution)
        where = f"; strongest in the {place[0]} ninth, {place[1]:.0%}" if place else "; nothing speaks for it"
        return Drawing(label, self.easel.heat(attribution, over), what + where)
