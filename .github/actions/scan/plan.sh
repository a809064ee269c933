#!/usr/bin/env bash
# Decides where caches are and what names them; sets the outputs pip-cache, pip-key and cache.
set -euo pipefail

root=$(cd "$GITHUB_ACTION_PATH/../../.." && pwd)
# -I: nothing is imported from the folder that it runs in.
python=$(python -I -c 'import platform; print(platform.python_version())')
# Another day, another set of versions of what is not pinned: keep downloads for a week.
week=$(date -u +%G-W%V)
what=$(
    {
        printf '%s\n' "$INPUT_INSTALL" "$INPUT_TORCH_INDEX"
        cat "$root/pyproject.toml"
    } | git hash-object --stdin
)

{
    echo "pip-cache=$(python -I -m pip cache dir)"
    echo "pip-key=encodercheck-pip-${RUNNER_OS}-${RUNNER_ARCH}-${python}-${what}-${week}"
    echo "cache=${ENCODERCHECK_CACHE:-$RUNNER_TEMP/encodercheck-cache}"
} >>"$GITHUB_OUTPUT"
