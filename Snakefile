# The whole reproduction: what is made. Order and commands of the stages: workflow/rules/. Values: params.yaml.
# usage: snakemake --cores all [--config preset=paper params=FILE]
include: "workflow/rules/common.smk"
include: "workflow/rules/preflight.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/results.smk"


rule all:
    default_target: True
    input:
        # every one: a record that was deleted, as messages advise, is asked for even where what followed from it is there
        [RECORD(stage.name, *place) for stage, place in params.jobs(P) if not stage.within],
