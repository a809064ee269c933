#!/usr/bin/env bash
# The job ends as the scan did, now that its reports are there.
set -euo pipefail

exit "${EXIT_CODE:-2}"
