#!/bin/sh
# Standard input to standard output, between two tools that know JSON; nothing else is ever on standard output.
#
#   jobs/pipeline/pipe.sh < jobs/data/articles.jsonl
#
# With pipefail (bash, or sh since POSIX 2024) the pipe ends with the exit code of ails-batch.

jq -c 'select(.text | length > 250)' |
    "${AILS_BATCH:-ails-batch}" run - --input-format jsonl -o - \
        --template 'Give this article another title: {{ text }}' --endpoint embedded --max-tokens 16 |
    jq -r '[.id, .title, .response] | @tsv'
