#!/usr/bin/env bash
# Publishes a badge on a branch of its own: BADGE_FILE as BADGE_PATH on BADGE_BRANCH of origin.
# Run in a checkout whose credentials may push. Its files and its branch are left as they are.
set -euo pipefail

branch=${BADGE_BRANCH:-badges}
path=${BADGE_PATH:-${BADGE_FILE##*/}}
ref=refs/heads/$branch

if [[ ! -f $BADGE_FILE ]]; then
    echo "$BADGE_FILE: no such badge; did the scan write one?" >&2
    exit 2
fi
git check-ref-format "$ref" || {
    echo "$branch: not a name for a branch" >&2
    exit 2
}

export GIT_AUTHOR_NAME=${GIT_AUTHOR_NAME:-encodercheck} GIT_COMMITTER_NAME=${GIT_COMMITTER_NAME:-encodercheck}
export GIT_AUTHOR_EMAIL=${GIT_AUTHOR_EMAIL:-encodercheck@users.noreply.github.com}
export GIT_COMMITTER_EMAIL=${GIT_COMMITTER_EMAIL:-$GIT_AUTHOR_EMAIL}

index=$(mktemp -d)
trap 'rm -rf "$index"' EXIT
export GIT_INDEX_FILE=$index/index

blob=$(git hash-object -w -- "$BADGE_FILE")
# Somebody else may push in between: then on top of theirs.
for attempt in 1 2 3 4 5; do
    parent=()
    if [[ -n $(git ls-remote origin "$ref") ]]; then
        git fetch --quiet --depth=1 origin "$ref"
        tip=$(git rev-parse FETCH_HEAD)
        parent=(-p "$tip")
        git read-tree "$tip"
    else
        git read-tree --empty
    fi
    git update-index --add --cacheinfo "100644,$blob,$path"
    tree=$(git write-tree)
    if ((${#parent[@]})) && [[ $tree == $(git rev-parse "$tip^{tree}") ]]; then
        echo "$branch: $path is up to date"
        exit 0
    fi
    commit=$(git commit-tree "$tree" ${parent[@]+"${parent[@]}"} -m "Update $path")
    if git push --quiet origin "$commit:$ref"; then
        echo "$branch: $path published"
        exit 0
    fi
    sleep "$attempt"
done
echo "$branch: cannot be pushed to; does the job have the permission contents: write?" >&2
exit 2
