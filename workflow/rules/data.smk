# archive (demo only) -> download -> crops -> pack, splits


if P.archive is not None:

    rule archive:
        output:
            RECORD("archive"),
        log:
            LOG("archive"),
        params:
            values=values("archive"),
            code=code("archive"),
        shell:
            "{MIRAM} archive > {log} 2>&1"


rule download:
    input:
        [RECORD("archive")] if P.archive is not None else [],
    output:
        RECORD("download"),
    log:
        LOG("download"),
    params:
        values=values("download"),
        code=code("download"),
    shell:
        "{MIRAM} download > {log} 2>&1"


rule crops:
    input:
        RECORD("download"),
    output:
        RECORD("crops"),
    log:
        LOG("crops"),
    params:
        values=values("crops"),
        code=code("crops"),
    shell:
        "{MIRAM} crops > {log} 2>&1"


rule pack:
    input:
        RECORD("crops"),
    output:
        RECORD("pack"),
    log:
        LOG("pack"),
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
    params:
        values=values("splits"),
        code=code("splits"),
    shell:
        "{MIRAM} splits > {log} 2>&1"
