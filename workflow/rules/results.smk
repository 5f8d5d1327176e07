# audit; cohort; evaluate -> claims, efficiency, table; explain; report; crate; and after a failure what can be made of the rest


rule audit:
    input:
        RECORD("crops"),
        [RECORD("splits", protocol) for protocol in PROTOCOLS],
    output:
        RECORD("audit"),
        MADE("audit"),
    log: LOG("audit")
    message: DOES("audit")
    params: **TRIGGERS("audit")
    shell: COMMAND("audit")


rule evaluate:
    input:
        [RECORD("splits", protocol) for protocol in PROTOCOLS],
        [RECORD("classify", *place) for place in CLASSIFIED],
        [RECORD("trivial", *place) for place in TRIVIAL],
    output:
        RECORD("evaluate"),
        MADE("evaluate"),
    log: LOG("evaluate")
    message: DOES("evaluate")
    params: **TRIGGERS("evaluate")
    resources: **needs("evaluate")
    shell: COMMAND("evaluate")


rule cohort:
    input:
        RECORD("crops"),
        [RECORD("splits", protocol) for protocol in PROTOCOLS],
        [RECORD("classify", *place) for place in CLASSIFIED if place[1] == params.headline(P)[1]],
    output:
        RECORD("cohort"),
        MADE("cohort"),
    log: LOG("cohort")
    message: DOES("cohort")
    params: **TRIGGERS("cohort")
    shell: COMMAND("cohort")


rule claims:
    input:
        RECORD("evaluate"),
        layout.claims_yaml(),
        layout.paper_csv(),
        layout.benches(),
    output:
        RECORD("claims"),
        MADE("claims"),
    log: LOG("claims")
    message: DOES("claims")
    params: **TRIGGERS("claims")
    shell: COMMAND("claims")


rule efficiency:
    input:
        RECORD("evaluate"),
        [RECORD("pretrain", *place) for place in FIRST],
        layout.claims_yaml(),
        layout.benches(),
    output:
        RECORD("efficiency"),
        MADE("efficiency"),
    log: LOG("efficiency")
    message: DOES("efficiency")
    params: **TRIGGERS("efficiency")
    shell: COMMAND("efficiency")


rule table:
    input:
        RECORD("evaluate"),
        RECORD("crops"),
        [RECORD("splits", protocol) for protocol in PROTOCOLS],
        [RECORD("pretrain", *place) for place in PRETRAINED],
        layout.paper_csv(),
    output:
        RECORD("table"),
        MADE("table"), # and the reconstructions of each method
    log: LOG("table")
    message: DOES("table")
    params: **TRIGGERS("table")
    shell: COMMAND("table")


rule explain:
    input:
        RECORD("pack"),
        RECORD("splits", PROTOCOLS[0]),
        [RECORD("classify", cell.protocol, cell.task, cell.method) for cell in EXPLAINED],
        [RECORD("pretrain", *place) for place in FIRST],
    output: RECORD("explain")
    log: LOG("explain")
    message: DOES("explain")
    params: **TRIGGERS("explain")
    threads: P.compute.threads
    resources: **needs("explain", gpus=1)
    shell: COMMAND("explain")


rule report:
    input:
        [] if P.source == params.IMAGES else [RECORD("audit"), RECORD("claims")],
        RECORD("cohort"),
        RECORD("efficiency"),
        RECORD("table"),
        [RECORD("explain")] if EXPLAINED else [],
        layout.paper_csv(),
        layout.claims_yaml(),
        layout.benches(),
    output:
        RECORD("report"),
        report(MADE("report"), caption="../report/report.rst", category="Report"),
    log: LOG("report")
    message: DOES("report")
    params: **TRIGGERS("report")
    shell: COMMAND("report")


# the last one: it describes what all the others left in the results folder
rule crate:
    input:
        [RECORD(stage.name) for stage in params.stages_of(P) if stage.final],
        layout.project_file(layout.WORKFLOW),
    output:
        RECORD("crate"),
        [file for file in MADE("crate") if P.source != params.IMAGES or file.name != layout.LOCK],
    log: LOG("crate")
    message: DOES("crate")
    params: **TRIGGERS("crate")
    shell: COMMAND("crate")


# a target beside `all`: what the first protocol and the first task need is done, and the results are made of it. Its jobs are
# jobs of `all`, which then does the rest
rule headline:
    input:
        [RECORD(stage.name, *place) for stage, place in params.headline_jobs(P) if not stage.within],
        [RECORD("splits", protocol) for protocol in PROTOCOLS],
        [] if P.source == params.IMAGES else [RECORD("audit")],
        [RECORD("explain")] if EXPLAINED else [],
    log: layout.logs(P.name) / "headline.log"
    message: "headline: make table, claims and report of the first protocol and task, the rest named as not run"
    shell: "{MIRAM} so-far > {log} 2>&1 && cat {RESULTS}/comparison.md"


def finish_with_gaps():
    """After a failure: say which jobs failed, and make the results that wait for them of what has finished, see `so-far`.

    The records of all unfinished jobs are deleted first: otherwise old ones would look up to date, now and in the next
    run. Nothing is done for a run that was stopped.
    """
    if workflow.scheduler.running or workflow.dag.ready_jobs:
        return
    left = set(workflow.dag.needrun_jobs())
    failed = {job for job in left if left.isdisjoint(workflow.dag.dependencies[job])}
    for file in [*(job.output[0] for job in left if job.output), *(log for job in left - failed for log in job.log)]:
        Path(file).unlink(missing_ok=True)
    print("Failed:", *sorted(f"  {job.rule.name}: {job.log[0]}" for job in failed), sep="\n", file=sys.stderr)
    if {"all", "headline"} & {job.rule.name for job in left}:  # no single file was asked for
        log = layout.logs(P.name) / "so-far.log"
        made = subprocess.run(f"{MIRAM} so-far > {log} 2>&1", shell=True).returncode == 0
        files = f"Made without them, the gaps named: {RESULTS}/report.html, {RESULTS}/comparison.md."
        print(files if made else f"Not all results could be made of the rest: see {log}.", file=sys.stderr)
    print("Fix what the logs name, then run the same command: only what is missing is done.", file=sys.stderr)


onerror:
    finish_with_gaps()
