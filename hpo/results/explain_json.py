"""An explanation for programs: all figures, without the pictures."""

from typing import Any

from hpo.results.explain import Explanation
from hpo.results.explain_text import by_column, impossible, matters, reached, score


def as_json(found: Explanation) -> dict[str, Any]:
    """All figures, without the pictures."""
    subject = found.subject
    known = score(subject)
    return {
        "name": subject.name,
        "task": subject.task,
        "examples": len(subject.features),
        "score": None if known is None else {"metric": known[0], "value": known[1]},
        "sentences": matters(found),
        "about": [*subject.about, reached(subject)],
        "importances": _importances_json(found),
        "attributions": _attributions_json(found),
        "confused": [
            {
                "true": subject.classes[p.true],
                "predicted": subject.classes[p.predicted],
                "count": p.count,
                "of": p.of,
            }
            for p in found.pairs
        ],
        "sanity": [
            {
                "method": check.method,
                "passed": check.passed,
                "layers": list(check.layers),
                "rank_correlations": list(check.correlations),
            }
            for check in found.checks
        ],
        "impossible": impossible(found),
        "seconds": round(found.seconds, 2),
    }


def _importances_json(found: Explanation) -> list[dict[str, Any]]:
    columns = found.importances.columns if found.importances else ()
    return [{"column": one.column, "cost": one.cost, "interval": list(one.interval)} for one in columns]


def _attributions_json(found: Explanation) -> dict[str, dict[str, float]]:
    """Of a table: means by class and raw column."""
    table = found.subject.table
    if table is None:
        return {}
    return {
        name: dict(zip((c.name for c in table.columns), by_column(mean, table).tolist(), strict=True))
        for name, mean in zip(found.subject.outputs_named, found.by_class.means, strict=True)
        if mean is not None
    }
