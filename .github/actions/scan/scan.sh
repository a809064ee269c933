#!/usr/bin/env bash
# Scans, with what the action's inputs say: INPUT_* of the environment, never text in a script.
# Sets the outputs, writes the step summary, and ends with 0 whatever the scan ended with.
set -euo pipefail

# Reads lines into the array `lines`, without the spaces around them, and without empty ones.
read_lines() {
    local line
    lines=()
    while IFS= read -r line; do
        line=$(sed 's/^[[:space:]]*//; s/[[:space:]]*$//' <<<"$line")
        [[ -z $line ]] || lines+=("$line")
    done <<<"$1"
}

# Reads the words of a command line into the array `words`, quoted as in a shell, run as in none.
read_words() {
    local word list
    words=()
    [[ -n $1 ]] || return 0
    list=$(mktemp)
    # -I: nothing is imported from the folder that it runs in.
    if ! TEXT=$1 python -I -c '
import os, shlex, sys
sys.stdout.buffer.write(b"".join(os.fsencode(w) + b"\0" for w in shlex.split(os.environ["TEXT"])))
' >"$list" 2>/dev/null; then
        echo "::error title=encodercheck::extra-args: a quote is not closed"
        return 1
    fi
    while IFS= read -r -d '' word; do
        words+=("$word")
    done <"$list"
    rm -f "$list"
}

# Sets an output to a path where there is such a file, else to nothing.
report() {
    [[ -f $2 ]] && echo "$1=$2" >>"$GITHUB_OUTPUT" || echo "$1=" >>"$GITHUB_OUTPUT"
}

# A path with a line feed in it would set outputs of its own.
reports=${INPUT_REPORT_DIR//$'\n'/}
badge=${INPUT_BADGE//$'\n'/}
reports=${reports:-encodercheck-report}
badge=$reports/${badge:-badge.json}
mkdir -p -- "$reports"

arguments=(
    --json "$reports/report.json"
    --junit "$reports/junit.xml"
    --sarif "$reports/report.sarif"
    --markdown "$reports/report.md"
    --html "$reports/report.html"
    --badge "$badge"
    --artifacts "$reports/artifacts"
)
# What an earlier scan of the job left is none of this one's.
rm -f -- "$reports"/{report.json,junit.xml,report.sarif,report.md,report.html} "$badge"
[[ -z $INPUT_IMAGES ]] || arguments+=(--images "$INPUT_IMAGES")
[[ -z $INPUT_PROFILE ]] || arguments+=(--profile "$INPUT_PROFILE")
[[ -z $INPUT_SEED ]] || arguments+=(--seed "$INPUT_SEED")
[[ -z $INPUT_FAIL_ON ]] || arguments+=(--fail-on "$INPUT_FAIL_ON")
[[ -z $INPUT_BASELINE ]] || arguments+=(--baseline "$INPUT_BASELINE")
code=0
config=$("$GITHUB_ACTION_PATH/config.sh") || code=2
case $config in
    "") ;;
    none) arguments+=(--no-config) ;;
    *) arguments+=(--config "$config") ;;
esac
[[ $INPUT_STRICT != true ]] || arguments+=(--strict)

read_lines "$INPUT_MODEL"
if ((code != 0)); then
    echo "encodercheck: no configuration that can be trusted, so no scan"
elif ((${#lines[@]} == 0)); then
    echo "::error title=encodercheck::model: name one model a line"
    code=2
elif ! read_words "$INPUT_EXTRA_ARGS"; then
    code=2
else
    # After -- a model is a model, whatever it begins with.
    encodercheck scan "${arguments[@]}" ${words[@]+"${words[@]}"} -- "${lines[@]}" || code=$?
fi

# 127 where there is no such command, 130 or 143 where it was stopped: no verdict.
case $code in
    0) outcome=passed ;;
    1) outcome=failed ;;
    *) outcome=no-verdict ;;
esac
{
    echo "outcome=$outcome"
    echo "exit-code=$code"
} >>"$GITHUB_OUTPUT"
report json "$reports/report.json"
report junit "$reports/junit.xml"
report sarif "$reports/report.sarif"
report markdown "$reports/report.md"
report html "$reports/report.html"
report badge "$badge"

if [[ -s $reports/report.md ]]; then
    cat -- "$reports/report.md" >>"$GITHUB_STEP_SUMMARY"
else
    echo "encodercheck: no verdict, and no report (exit code $code): see the log." >>"$GITHUB_STEP_SUMMARY"
fi
