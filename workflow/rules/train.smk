# pretrain (a job a protocol and method) -> finetune, probe (a job a cell: protocol, task, mode, method and seed)


def START(wildcards):
    """What the encoder of a cell starts from."""
    if wildcards.method == layout.IMAGENET:
        return P.finetune.imagenet_init
    return RECORD("pretrain", wildcards.protocol, wildcards.method) if wildcards.method in P.methods else []


rule pretrain:
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        lambda wildcards: P.methods[wildcards.method].pretrain.encoder_init or [],
    output:
        RECORD("pretrain"),
    log:
        LOG("pretrain"),
    message:
        "{wildcards.method} is pre-trained, protocol {wildcards.protocol}"
    params:
        values=values("pretrain"),
        code=code("pretrain"),
        lock=record.lock_digest(),
    priority: 1 # the longest jobs first: no core waits for the last of them
    threads: P.compute.threads
    resources:
        **needs("pretrain", gpus=P.compute.devices),
    shell:
        "{MIRAM} pretrain --protocol {wildcards.protocol} --method {wildcards.method} > {log} 2>&1"


rule finetune:
    wildcard_constraints:
        mode=layout.FINETUNE,
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        START,
    output:
        RECORD("finetune"),
    log:
        LOG("finetune"),
    message:
        "{wildcards.method} is fine-tuned, protocol {wildcards.protocol}, {wildcards.task}, seed {wildcards.seed}"
    params:
        values=values("finetune"),
        code=code("finetune"),
        lock=record.lock_digest(),
    threads: P.compute.threads
    resources:
        **needs("finetune", gpus=1),
    shell:
        "{MIRAM} finetune --protocol {wildcards.protocol} --task {wildcards.task} --method {wildcards.method}"
        " --seed {wildcards.seed} > {log} 2>&1"


rule probe:
    wildcard_constraints:
        mode="linear|knn",
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        START,
    output:
        RECORD("probe"),
    log:
        LOG("probe"),
    message:
        "{wildcards.method} is probed, protocol {wildcards.protocol}, {wildcards.task}, {wildcards.mode}"
    params:
        values=values("probe"),
        code=code("probe"),
        lock=record.lock_digest(),
    threads: P.compute.threads
    resources:
        **needs("probe", gpus=1),
    shell:
        "{MIRAM} probe --protocol {wildcards.protocol} --task {wildcards.task} --mode {wildcards.mode}"
        " --method {wildcards.method} --seed {wildcards.seed} > {log} 2>&1"
