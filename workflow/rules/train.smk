# pretrain (a job a method) -> finetune (a job a method and seed)


rule pretrain:
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
    output:
        RECORD("pretrain"),
    log:
        LOG("pretrain", "/{method}"),
    message:
        "{wildcards.method} is pre-trained"
    params:
        values=values("pretrain"),
        code=code("pretrain"),
        lock=record.lock_digest(),
    threads: P.compute.threads
    resources:
        gpu=GPUS,
    shell:
        "{MIRAM} pretrain {wildcards.method} > {log} 2>&1"


rule finetune:
    input:
        RECORD("crops"),
        RECORD("pack"),
        RECORD("splits"),
        lambda wildcards: [] if wildcards.method == layout.FROM_SCRATCH else RECORD("pretrain", wildcards.method),
    output:
        RECORD("finetune"),
    log:
        LOG("finetune", "/{method}-seed-{seed}"),
    message:
        "{wildcards.method} is fine-tuned, seed {wildcards.seed}"
    params:
        values=values("finetune"),
        code=code("finetune"),
        lock=record.lock_digest(),
    threads: P.compute.threads
    resources:
        gpu=GPUS,
    shell:
        "{MIRAM} finetune {wildcards.method} --seed {wildcards.seed} > {log} 2>&1"
