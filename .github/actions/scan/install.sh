#!/usr/bin/env bash
# Installs encodercheck: what INPUT_INSTALL says, one requirement a line, or this action's version.
set -euo pipefail

root=$(cd "$GITHUB_ACTION_PATH/../../.." && pwd)

wanted=()
while IFS= read -r line; do
    # Without the spaces around it; empty lines say nothing.
    line=$(sed 's/^[[:space:]]*//; s/[[:space:]]*$//' <<<"$line")
    [[ -z $line ]] || wanted+=("$line")
done <<<"$INPUT_INSTALL"
if ((${#wanted[@]} == 0)); then
    wanted=("$root")
fi

# -I: nothing is imported from the folder that it runs in, as a pip.py of a pull request.
pip=(python -I -m pip install --quiet --disable-pip-version-check)
if [[ -n $INPUT_TORCH_INDEX ]]; then
    "${pip[@]}" --index-url "$INPUT_TORCH_INDEX" torch torchvision
fi
"${pip[@]}" -- "${wanted[@]}"
