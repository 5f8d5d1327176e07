# pretrain (a job a protocol, method and seed) -> classify (a job a protocol, task and method, which makes its classifiers one after
# the other: see `miram classify`); trivial (a job a protocol and task)


def STARTS(wildcards):
    """What the classifiers of a job are made from, other than one of them."""
    parts = params.parts(P, "classify", wildcards.protocol, wildcards.task, wildcards.method)
    own = {layout.record(row.name, P.name, *cell) for row, cell in parts}
    if not all(path.exists() for path in own):  # they are no rule's output, see below
        workflow.dag.forcefiles.add(RECORD("classify", wildcards.protocol, wildcards.task, wildcards.method))
    return sorted({str(path) for _, cell in parts for path in params.inputs_of(P, cell) if path not in own})


rule pretrain:
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        lambda wildcards: P.methods[wildcards.method].pretrain.encoder_init or [],
    output: RECORD("pretrain")
    log: LOG("pretrain")
    message: DOES("pretrain")
    params: **TRIGGERS("pretrain")
    priority: 1 # the longest jobs first: no core waits for the last of them
    threads: P.compute.threads
    resources: **needs("pretrain", gpus=P.compute.devices)
    shell: COMMAND("pretrain")


rule classify:
    input:
        STARTS,
    output: RECORD("classify") # not the classifiers' own: Snakemake deletes outputs before it runs a job again
    log: LOG("classify")
    message: DOES("classify")
    params: **TRIGGERS("classify")
    threads: P.compute.threads
    resources: **needs("classify", gpus=1)
    shell: COMMAND("classify")


rule trivial:
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
    output: RECORD("trivial")
    log: LOG("trivial")
    message: DOES("trivial")
    params: **TRIGGERS("trivial")
    resources: **needs("trivial")
    shell: COMMAND("trivial")
