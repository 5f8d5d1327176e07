# doctor: before the first job, not a job itself. A stop ends the run before anything is done.


def examine_machine():
    """Ask `miram doctor` whether the machine can do what is planned, in the image where the jobs run in it.

    Not a rule: one that others need, and that runs again when a parameter changes, has them done again, or behind
    `ancient()` hides what is to be done from the plan (Snakemake's issue 4166). On a cluster the jobs
    look for their GPU, and for the source, themselves.
    """
    stages = sorted({job.rule.name for job in workflow.dag.needrun_jobs()} & {name for name, row in STAGES.items() if row.examined})
    if params.is_embedded(P) or not stages:
        return
    log = layout.logs(P.name) / "doctor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"This machine is examined: {log}", file=sys.stderr, flush=True)
    elsewhere = "" if workflow.local_exec else "--elsewhere"
    image = {}
    if workflow.deployment_settings.deployment_method:
        image["container_img"] = next(workflow.dag.needrun_jobs()).container_img_path
        image["singularity_args"] = workflow.deployment_settings.apptainer_args
    try:
        shell(f"{MIRAM} doctor {elsewhere} --stages {' '.join(stages)} > {log} 2>&1", **image)
    except subprocess.CalledProcessError:
        raise WorkflowError(f"{log.read_text(encoding='utf-8', errors='replace')}Nothing was begun. These words stand in {log} as well.") from None


onstart:
    examine_machine()
