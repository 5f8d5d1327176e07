# archive (embedded) -> catalogue -> crops, or images -> pack, splits (a job a protocol)


if params.is_embedded(P):

    rule archive:
        output: RECORD("archive")
        log: LOG("archive")
        message: DOES("archive")
        params: **TRIGGERS("archive")
        shell: COMMAND("archive")


if P.source == params.IMAGES:

    rule images:
        input:
            P.sources.images.table_csv,
            lambda wildcards: OWN_IMAGES(),
        output: RECORD("images")
        log: LOG("images")
        message: DOES("images")
        params: **TRIGGERS("images")
        shell: COMMAND("images")


else:

    rule catalogue:
        input:
            [RECORD("archive")] if params.is_embedded(P) else [],
        output: RECORD("catalogue")
        log: LOG("catalogue")
        message: DOES("catalogue")
        params: **TRIGGERS("catalogue")
        shell: COMMAND("catalogue")


    rule crops:
        input:
            RECORD("catalogue"),
        output: RECORD("crops")
        log: LOG("crops")
        message: DOES("crops")
        params: **TRIGGERS("crops")
        resources: **needs("crops")
        shell: COMMAND("crops")


rule pack:
    input:
        RECORD("crops"),
        lambda wildcards: EXTRA_IMAGES(),
    output: RECORD("pack")
    log: LOG("pack")
    message: DOES("pack")
    params: **TRIGGERS("pack")
    shell: COMMAND("pack")


rule splits:
    input:
        RECORD("crops"),
    output: RECORD("splits")
    log: LOG("splits")
    message: DOES("splits")
    params: **TRIGGERS("splits")
    shell: COMMAND("splits")
