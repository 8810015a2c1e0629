#!/usr/bin/env bash
# Make one of the two Python environments from its pins.
#   docker/make-environment.sh PYTHON FOLDER CONSTRAINTS REQUIREMENT...
# The project is installed editable; everything else comes from the constraints.
set -euo pipefail

python=$1 folder=$2 constraints=$3
shift 3

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed, $("$python" --version) was found. Pass PYTHON=python3.11 to make." >&2
    exit 1
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian and Ubuntu ship Python without it.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq python3-venv
    else
        echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi
"$python" -m venv "$folder"
project=$1
shift
# Of pip's output, the name of each package as it comes: a sign of life, and the errors, which go to stderr.
PIP_DISABLE_PIP_VERSION_CHECK=1 "$folder/bin/pip" install --progress-bar off \
    --constraint "$constraints" --editable "$project" "$@" |
    sed -unE 's/^Collecting ([^ ]+).*/  \1/p; s/^(Installing collected packages).*/  \1 …/p'
