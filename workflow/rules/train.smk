# pretrain (a job a protocol, method and seed) -> finetune, probe (a job a cell: protocol, task, mode, method and seed);
# trivial (a job a protocol and task)


def START(wildcards):
    """What the encoder of a cell starts from."""
    if wildcards.method in P.encoders:
        return P.encoders[wildcards.method].weights or []
    seed = params.pretrain_seed(P, layout.Cell(*(wildcards.get(name) for name in layout.Cell._fields)))
    return [] if seed is None else RECORD("pretrain", wildcards.protocol, wildcards.method, seed)


def CHOOSER(wildcards):
    """The fine-tuning that chooses this one's learning rate, if there are several to choose from."""
    first = params.chooser(P, layout.Cell(*(wildcards[name] for name in layout.Cell._fields)))
    return RECORD("finetune", *first) if first else []


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


rule finetune:
    wildcard_constraints:
        mode="|".join(STAGES["finetune"].modes),
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        START,
        CHOOSER,
    output: RECORD("finetune")
    log: LOG("finetune")
    message: DOES("finetune")
    params: **TRIGGERS("finetune")
    threads: P.compute.threads
    resources: **needs("finetune", gpus=1)
    shell: COMMAND("finetune")


rule probe:
    wildcard_constraints:
        mode="|".join(STAGES["probe"].modes),
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        START,
    output: RECORD("probe")
    log: LOG("probe")
    message: DOES("probe")
    params: **TRIGGERS("probe")
    threads: P.compute.threads
    resources: **needs("probe", gpus=1)
    shell: COMMAND("probe")


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
