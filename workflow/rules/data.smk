# archive (embedded) -> catalogue -> crops, or images -> pack, splits (a job a protocol)


if params.is_embedded(P):

    rule archive:
        output:
            RECORD("archive"),
        log:
            LOG("archive"),
        message:
            "the embedded archive is written"
        params:
            values=values("archive"),
            code=code("archive"),
        shell:
            "{MIRAM} archive > {log} 2>&1"


if P.source == params.IMAGES:

    rule images:
        input:
            P.sources.images.table_csv,
            lambda wildcards: OWN_IMAGES(),
        output:
            RECORD("images"),
        log:
            LOG("images"),
        message:
            "the images are read"
        params:
            values=values("images"),
            code=code("images"),
        shell:
            "{MIRAM} images > {log} 2>&1"


else:

    rule catalogue:
        input:
            [RECORD("archive")] if params.is_embedded(P) else [],
        output:
            RECORD("catalogue"),
        log:
            LOG("catalogue"),
        message:
            "the case lists are fetched and the series listed"
        params:
            values=values("catalogue"),
            code=code("catalogue"),
        shell:
            "{MIRAM} catalogue > {log} 2>&1"


    rule crops:
        input:
            RECORD("catalogue"),
        output:
            RECORD("crops"),
        log:
            LOG("crops"),
        message:
            "film by film, the series are fetched and verified and the lesions cut"
        params:
            values=values("crops"),
            code=code("crops"),
        resources:
            **needs("crops"),
        shell:
            "{MIRAM} crops > {log} 2>&1"


rule pack:
    input:
        RECORD("crops"),
        lambda wildcards: EXTRA_IMAGES(),
    output:
        RECORD("pack"),
    log:
        LOG("pack"),
    message:
        "the crops are packed for training"
    params:
        values=values("pack"),
        code=code("pack"),
    shell:
        "{MIRAM} pack > {log} 2>&1"


rule splits:
    input:
        RECORD("crops"),
    output:
        RECORD("splits"),
    log:
        LOG("splits"),
    message:
        "the lesions are split, protocol {wildcards.protocol}"
    params:
        values=values("splits"),
        code=code("splits"),
    shell:
        "{MIRAM} splits --protocol {wildcards.protocol} > {log} 2>&1"
