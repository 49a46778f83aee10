"""The report: a study's outcome as one self-contained HTML file."""

from collections.abc import Iterator
from typing import Any

import yaml

from hpo.results import effect_text, summary
from hpo.results.candidates import selection_cost
from hpo.results.effects import Effects
from hpo.results.finalize import FinalResult
from hpo.results.page import page
from hpo.results.reported import Reported
from hpo.results.sections import Sections, draw
from hpo.results.slices import points_of_a_slice
from hpo.results.values import LABELS, METRIC_LABELS, complete_trials


def render(study: Reported, sections: Sections | None = None) -> str:
    """The page's HTML: nothing in it comes from elsewhere, and only its own scripts can run."""
    drawn = sections or draw(study)
    config, result, found = study.config, study.result, drawn.effects
    return page(
        "report.html",
        drawn.panels,
        study=study,
        config=config,
        result=result,
        drawn=drawn,
        sentences=sentences(study, drawn),
        effects=found if isinstance(found, Effects) else None,
        effect_sentences=effect_text.sentences(found, config) if isinstance(found, Effects) else [str(found)],
        complete=len(complete_trials(study.trials)),
        slice_points=points_of_a_slice(config),
        failures=summary.failures(study.trials),
        metric_label=LABELS[config.metric],
        costs={c.number: selection_cost(config, c) for c in result.candidates} if result else {},
        metrics=_metrics(result) if result else [],
        facts=facts(study),
        commands=list(_commands(study)),
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def sentences(study: Reported, sections: Sections) -> list[str]:
    """What was searched and found, in short."""
    searched, *outcome = summary.summary(study.config, study.trials, study.result, study.sizes)
    going_on = [summary.unfinished(study.running, study.waiting)] if study.running + study.waiting else []
    return [searched, *going_on, effect_text.headline(sections.effects, study.config), *outcome]


def facts(study: Reported) -> dict[str, str]:
    """What another machine has to have in common, to come to the same."""
    config, result = study.config, study.result
    known = {
        "data fingerprint": study.fingerprint,
        "configuration (SHA-256)": config.digest(),
        "seed": str(config.training.seed),
    }
    if result is not None:
        known |= {
            "seeds of re-evaluation": ", ".join(map(str, result.fresh_seeds)),
            "exported model's seed": str(result.seed),
            "exported model's weights (SHA-256)": result.weights,
            "test part opened": ", ".join(result.openings),
        }
    return {name: value for name, value in known.items() if value}


def _commands(study: Reported) -> Iterator[tuple[str, str]]:
    """Each command, and what it does."""
    name = study.config.name
    yield "hpo run study.yaml", "search, re-evaluate, retrain, test"
    for trials in study.extensions:
        yield f"hpo extend {name} --trials {trials}", "as it was done"
        yield "hpo run study.yaml", "go on"
    yield f"hpo run results/{name}/best.yaml", "the winner alone"
    yield f"hpo audit {name}", "what could be wrong"
    yield f"hpo report {name} --out {name}.html", "this page"


def _metrics(result: FinalResult) -> list[dict[str, Any]]:
    """Rows of the table of test metrics."""
    test = result.test
    rows: list[dict[str, Any]] = []
    for name, value in test.scalars().items():
        rows.append(
            {
                "name": name,
                "label": METRIC_LABELS[name],
                "value": value,
                "interval": test.interval(name),
                "seeds": result.seeds.get(name),
            }
        )
    return rows


def as_json(study: Reported, sections: Sections) -> dict[str, Any]:
    """What the page says, for scripts."""
    found = sections.effects
    told = found if isinstance(found, Effects) else None
    return {
        "study": study.config.name,
        "finalized": study.result is not None,
        "sentences": sentences(study, sections),
        "effects": [vars(effect) for effect in told.found] if told else [],
        "effects_untold": None if told else str(found),
        "interaction": vars(told.interaction) if told and told.interaction else None,
        "warnings": [vars(finding) for finding in study.audited if finding.severity == "warning"],
    }
