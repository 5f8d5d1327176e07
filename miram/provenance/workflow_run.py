"""The run in the terms of the Workflow Run RO-Crate profiles: the workflow, and the times and files of its stages.

https://w3id.org/ro/wfrun/provenance/0.5. A stage is one tool, one step and one action, however many jobs it has.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity, Entity
from rocrate.model.computationalworkflow import ComputationalWorkflow
from rocrate.rocrate import ROCrate
from rocrate.utils import as_list

from miram.stages import STAGES

ROCRATE = "1.1"  # the version of RO-Crate that these profiles extend
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # which RO-Crate 1.1 does not define
RUN = "#run"
AGENT = {"@id": "#operator", "@type": "Person", "name": "Whoever ran the workflow (not recorded)"}


class _Workflow(ComputationalWorkflow):
    """A workflow that names its steps."""

    TYPES = (*ComputationalWorkflow.TYPES, "HowTo")


def add_entity(crate: ROCrate, properties: Mapping[str, Any]) -> ContextEntity:
    """An entity of the crate that is not a file; `properties` hold its `@id`."""
    own = {name: value for name, value in properties.items() if name != "@id"}
    return crate.add(ContextEntity(crate, properties["@id"], properties=own))


def add_profiles(crate: ROCrate) -> None:
    """State the profiles that the crate conforms to, and define terms beyond those of RO-Crate."""
    crate.metadata.extra_terms.update(TERMS)
    crate.root_dataset["conformsTo"] = [
        add_entity(crate, {"@id": uri, "@type": "CreativeWork", "name": name, "version": uri.rpartition("/")[2]})
        for uri, name in PROFILES.items()
    ]


def add_workflow(crate: ROCrate, file: Path, facts: Mapping[str, Any]) -> Entity:
    """The workflow's `file`, in the crate's folder, as the crate's main entity."""
    properties = {"name": "The workflow of miram", "encodingFormat": "text/plain", **facts}
    return crate.add_workflow(file, file.name, properties=properties, main=True, lang="snakemake", cls=_Workflow)


def add_run(
    crate: ROCrate,
    records: Mapping[Path, Mapping[str, Any]],
    *,
    software: Entity,
    datasets: Sequence[Entity],
    parameters: Mapping[str, Sequence[Entity]],
    files: Mapping[Path, Entity],
) -> None:
    """The run of the main workflow and of each stage, with their times if recorded.

    `parameters`: stage -> its values. `files`: those of the crate, by their path in the records.
    """
    workflow, agent = crate.mainEntity, add_entity(crate, AGENT)
    stages = sorted({made["stage"] for made in records.values()}, key=list(STAGES).index)
    jobs = {stage: [made for made in records.values() if made["stage"] == stage] for stage in stages}
    results = {stage: _results(crate, stage, jobs[stage], files) for stage in stages}
    given = [*datasets, *(value for stage in stages for value in parameters.get(stage, []))]
    told = {"name": crate.name, "description": f"The jobs of {len(stages)} stages, {len(records)} in all"}
    links = {"agent": agent, "instrument": workflow, "object": given, "result": list(files.values())}
    run = _action(crate, RUN, told, records.values(), **links)
    actions, tools, steps = [run], [], []
    for position, stage in enumerate(stages):
        tools.append(_tool(crate, stage, software))
        step = {"@id": f"#step/{stage}", "@type": "HowToStep", "name": stage, "position": str(position)}
        steps.append(add_entity(crate, {**step, "workExample": tools[-1]}))
        told = {"name": f"Stage {stage}", "description": f"{len(jobs[stage])} jobs, the first start to the last end"}
        given = [*parameters.get(stage, []), *(file for read in _read(jobs[stage], records) for file in results[read])]
        links = {"agent": agent, "instrument": tools[-1], "object": given, "result": results[stage]}
        action = _action(crate, f"{RUN}/{stage}", told, jobs[stage], **links)
        control = {"@id": f"#control/{stage}", "@type": "ControlAction", "name": f"Snakemake's jobs of {stage}"}
        actions += [action, add_entity(crate, {**control, "instrument": steps[-1], "object": action})]
    workflow["hasPart"], workflow["step"] = tools, steps
    crate.root_dataset.append_to("mentions", actions)


def _tool(crate: ROCrate, stage: str, software: Entity) -> Entity:
    """The command of a stage, or the one that does it among other things; it is part of `software`."""
    name = f"miram {STAGES[stage].within or stage}"
    properties = {"@id": f"#tool/{stage}", "@type": "SoftwareApplication", "name": name}
    return add_entity(crate, {**properties, "version": software["version"], "softwareRequirements": software})


def _action(
    crate: ROCrate,
    identifier: str,
    told: Mapping[str, str],
    jobs: Collection[Mapping[str, Any]],
    **links: Entity | Sequence[Entity],
) -> Entity:
    """One action with the times of its jobs; empty links are left out, and a single link is not a list."""
    properties = {"@id": identifier, "@type": "CreateAction", **told, **_times(jobs)}
    several = {name: as_list(value) for name, value in links.items()}
    return add_entity(crate, properties | {name: v if len(v) > 1 else v[0] for name, v in several.items() if v})


def _times(jobs: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """From the first start to the last end; nothing if a record of an earlier version lacks them."""
    if not all("ended" in made for made in jobs):
        return {}
    return {"startTime": min(made["started"] for made in jobs), "endTime": max(made["ended"] for made in jobs)}


def _results(crate: ROCrate, stage: str, jobs: Sequence[Mapping[str, Any]], files: Mapping[Path, Entity]) -> list:
    """The files of the crate that a stage wrote, and one entity for all its files elsewhere."""
    written = sorted({Path(name) for made in jobs for name in made["outputs"]})
    elsewhere = [path for path in written if path not in files]
    told = {"@type": "CreativeWork", "name": f"{len(elsewhere)} files of the stage {stage} that are not in this crate"}
    others = [add_entity(crate, {"@id": f"#files/{stage}", **told})] if elsewhere else []
    return [files[path] for path in written if path in files] + others


def _read(jobs: Sequence[Mapping[str, Any]], records: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """The stages whose records these jobs read."""
    read = {Path(name) for made in jobs for name in made["inputs"]}
    return sorted({records[path]["stage"] for path in read & records.keys()})
