#!/usr/bin/env nextflow
/*
 * Nextflow: a mask pyramid for each slide.
 *
 *     nextflow run examples/nextflow --slides '/data/slides/*.svs' --outdir /data/results --options '--budget 10%'
 *
 * Each try of a task has a new work directory; a store that is half done must outlive it. So wsi-seg writes to
 * `outdir`, which all machines see at the same path, and the task's output is a link to it: what comes after
 * takes it as any other. publishDir has only the small report left to copy.
 *
 * How wsi-seg ends      What the process does
 *   0                   done
 *   3 tiles unreadable  done, too: the store is valid and names them; with --partial fail it is a failure
 *   75 stopped          tries again, at most 10 times; the store goes on from where it was
 *   137, 140, 143       killed by the executor: the same
 *   else                given up; the other slides go on, and Nextflow fails in the end (failOnIgnore)
 */

process SEGMENT {
    tag "${slide.name}"
    errorStrategy { task.exitStatus in [75, 137, 140, 143] && task.attempt <= 10 ? 'retry' : 'ignore' }
    maxRetries 10
    publishDir "${params.outdir}/reports", mode: 'copy', pattern: '*.json'

    input:
    tuple path(slide), path(beside)

    output:
    path '*.seg.ome.zarr', emit: stores
    path '*.json', emit: reports

    script:
    def name = slide.baseName.replaceFirst(/\.ome$/, '')
    def store = "${file(params.outdir)}/${name}.seg.ome.zarr"
    def limit = task.time ? "--max-seconds ${task.time.toSeconds() - 120}" : ''
    """
    code=0
    wsi-seg run ${slide} -o '${store}' --workers ${task.cpus} ${limit} --json -q ${params.options} \
        >'${name}.json' || code=\$?
    if [ "\$code" -eq 3 ] && [ '${params.partial}' = keep ]; then code=0; fi
    if [ "\$code" -eq 0 ]; then ln -s '${store}' .; fi
    exit "\$code"
    """
}

workflow {
    slides = channel
        .fromPath(params.slides, checkIfExists: true)
        .map { slide ->
            def beside = slide.resolveSibling(slide.baseName) // the folder of a .mrxs or .vms comes along
            tuple(slide, beside.isDirectory() ? beside : [])
        }
    SEGMENT(slides)
    SEGMENT.out.reports.collectFile(name: 'results.jsonl', storeDir: params.outdir)
}
