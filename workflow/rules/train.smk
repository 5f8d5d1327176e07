# pretrain (a job a protocol and method) -> finetune, probe (a job a cell: protocol, task, mode, method and seed)


def START(wildcards):
    """What the encoder of a cell starts from."""
    if wildcards.method == layout.IMAGENET:
        return P.finetune.imagenet_init
    return RECORD("pretrain", wildcards.protocol, wildcards.method) if wildcards.method in P.methods else []


def FIRST(wildcards):
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
        FIRST,
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
