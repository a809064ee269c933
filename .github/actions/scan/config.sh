#!/usr/bin/env bash
# Prints which configuration a scan goes by: nothing for the one that is found here, a path, or "none".
# On a pull request it is that of the base, with the checks that it names: the request could bring a
# model together with a configuration that lets it in.
set -euo pipefail

fault() {
    echo "::error title=encodercheck::$1" >&2
    exit 1
}

from=${INPUT_CONFIG_FROM:-base}
if [[ $from == base && -z $BASE_SHA ]]; then
    # A push, say: what is here has been reviewed.
    from=here
fi
if [[ $from == here ]]; then
    printf '%s' "$INPUT_CONFIG"
    exit
fi
if [[ $from == none ]]; then
    [[ -z $INPUT_CONFIG ]] || fault "config and config-from: none exclude each other"
    printf none
    exit
fi

commit=$BASE_SHA
if [[ $from != base ]] || ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    [[ $from == base ]] && wanted=$commit || wanted=$from
    git fetch --quiet --depth 1 -- origin "$wanted" >&2 || fault "config-from: $wanted cannot be fetched"
    commit=$(git rev-parse FETCH_HEAD)
fi
tree=$(mktemp -d "$RUNNER_TEMP/encodercheck-config.XXXXXX")
# Models are not needed there.
GIT_LFS_SKIP_SMUDGE=1 git worktree add --quiet --force --detach "$tree" "$commit" >&2 ||
    fault "config-from: $commit cannot be checked out"

place=$tree/$(git rev-parse --show-prefix)
if [[ -n $INPUT_CONFIG ]]; then
    [[ $INPUT_CONFIG == /* ]] && file=$INPUT_CONFIG || file=$place$INPUT_CONFIG
    [[ -f $file ]] || fault "config: there is no $INPUT_CONFIG in $commit"
    printf '%s' "$file"
    exit
fi
if [[ ! -d $place ]]; then
    printf none
    exit
fi
cd "$place"
# -I: nothing is imported from the folder that it runs in.
python -I -c '
from encodercheck.config import find
print(find().path or "none", end="")
' || fault "config-from: the configuration of $commit cannot be read"
