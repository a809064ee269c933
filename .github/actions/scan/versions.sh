#!/usr/bin/env bash
# Says what is installed; sets the output key, which names what these versions compute.
set -euo pipefail

versions=$(
    python -I -c '
from importlib.metadata import version
print("-".join(name + version(name) for name in ("encodercheck", "torch", "numpy")))
'
)
echo "$versions"
echo "key=encodercheck-cache-${RUNNER_OS}-${RUNNER_ARCH}-${versions//+/_}" >>"$GITHUB_OUTPUT"
