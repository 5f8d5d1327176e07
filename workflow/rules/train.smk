# pretrain (a job a method) -> finetune (a job a method and seed)


rule pretrain:
    input:
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
    threads: P.compute.threads
    shell:
        "{MIRAM} pretrain {wildcards.method} > {log} 2>&1"


rule finetune:
    input:
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
    threads: P.compute.threads
    shell:
        "{MIRAM} finetune {wildcards.method} --seed {wildcards.seed} > {log} 2>&1"
