"""A reporting checklist: what a paper about these results is asked for, and where the answer stands.

The questions are those of CLAIM 2024 and TRIPOD+AI in our own words; their item numbers are left out, as no text of
the two was read for them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from miram.evaluate.markdown import aligned, paragraph, subject

PERSON = "needs a person"
INTRODUCTION = (
    "What reporting guidelines for AI in imaging and for prediction models (CLAIM 2024, TRIPOD+AI) ask for, in our own "
    "words and without their item numbers. Where the records of this run hold the answer, the file and the figure "
    f"stand beside it; the rest {PERSON}. It does not replace the guidelines."
)


class Item(NamedTuple):
    """A question; `file` and `figure` are empty where a person has to answer."""

    question: str
    file: str = ""
    figure: str = ""


def as_markdown(preset: str, page: Mapping[str, Any]) -> str:
    """The checklist as Markdown; `page` holds the values of the report's template."""
    sections = {
        "Data": _data(page),
        "Model and training": _model(page),
        "Results": _results(page),
        "Article": _article(),
    }
    parts = [f"# Reporting checklist, preset {preset}", f"**{subject(preset)}.**", paragraph(INTRODUCTION)]
    for title, items in sections.items():
        rows = [
            {"question": item.question, "file": item.file or PERSON, "figure": item.figure if item.file else ""}
            for item in items
        ]
        parts += [f"## {title}", aligned(rows)]
    return "\n\n".join(parts) + "\n"


def _data(page: Mapping[str, Any]) -> list[Item]:
    shared = "; ".join(
        f"{name}: {own['patient seen']} of {own['test lesions']} test lesions of patients seen in training"
        for name, own in page["leaks"].items()
    )
    films = page["judged"]
    return [
        Item("Where do the data come from, and which files exactly?", "instances.csv" if films else "", _lock(page)),
        Item("How many were excluded at each step, and why?", "cohort.md, set_aside.md", "the diagram"),
        Item(
            "Who is in each split?",
            "cohort.md, cohort.csv",
            f"{page['lesions']} test lesions, {page['patients']} patients",
        ),
        Item("At which level are the splits disjoint?", "audit.md" if films else "", shared),
        Item("How were images prepared?", "report.html#provenance", "parameters: crops"),
        Item("How were missing labels treated?", "report.html#audit", "without_label, in each classifier's record"),
        Item("How was the reference standard made, by whom, and how far do readers agree?"),
        Item("When and where were the patients seen, and whom do they represent?"),
        Item("How were the data made anonymous?"),
        Item("How was the number of patients decided?"),
    ]


def _model(page: Mapping[str, Any]) -> list[Item]:
    provenance = page["provenance"]
    return [
        Item(
            "What are the models, their inputs and outputs?",
            "comparison.csv",
            f"{len(page['looks'])} methods; pretrain_parameters",
        ),
        Item(
            "How were they initialised and trained?",
            "report.html#provenance",
            f"parameters; {page['seeds']} seeds a method",
        ),
        Item("How was the final model chosen?", "report.html#learning", "by macro AUC on validation lesions"),
        Item(
            "Which software and hardware?",
            "report.html#provenance",
            f"{provenance['devices']}; commit {provenance['commit']}",
        ),
        Item("Can others run it again?", "ro-crate-metadata.json, Snakefile", f"records: {provenance['records']}"),
        Item("Under which terms are code, weights and data available?"),
    ]


def _results(page: Mapping[str, Any]) -> list[Item]:
    leader, told = page["leader"], page["told_apart"]
    best = (
        f"{leader['method']}: {leader['text']} % ({page['percent']} interval {leader['interval'] or 'unknown'})"
        if leader
        else ""
    )
    pairs = f"{told['first']} differs from {told['told']} of {told['pairs']} others" if told else ""
    return [
        Item("How well do they do, and how uncertain is that?", "comparison.md, metrics.csv", best),
        Item("How do methods differ, by which test?", "differences.csv", pairs),
        Item("What does a simple model reach?", "comparison.md", page["trivial"]),
        Item("Are the probabilities calibrated?", "metrics.csv, report.html#calibration", "ece, brier"),
        Item("For which groups do they work?", "subgroups.csv, cohort.md", "exploratory"),
        Item("Where do they fail?", "report.html#errors, report.html#confusion", "the most confident errors"),
        Item("What do the answers rest on?", "report.html#relevance", "relevance maps"),
        Item("What is missing from the results?", "report.html#gaps", f"{len(page['gaps'])} gaps"),
        Item("How do they do on data from elsewhere?"),
        Item("How do they compare with readers?"),
    ]


def _article() -> list[Item]:
    return [
        Item("Do title and summary say what kind of study it is?"),
        Item("What is the intended use, and what is known of it?"),
        Item("What were the aims and hypotheses, and where were they registered before?"),
        Item("What do the results mean for practice, and what limits them?"),
        Item("What follows for groups that are treated unequally?"),
        Item("Ethics approval, funding, conflicts of interest, and the part that patients had?"),
    ]


def _lock(page: Mapping[str, Any]) -> str:
    return str(page["provenance"].get("data lock", ""))
