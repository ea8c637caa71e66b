#!/bin/sh
# Installs schemathesis, which tests the API against its OpenAPI document (tests/api). A second run does nothing.
#
# Needs Python 3.11 or newer with venv ($PYTHON, default python3).
set -eu
cd "$(dirname "$0")"

wanted=$(cat requirements.txt install.sh | cksum)
if [ "$(cat .installed 2>/dev/null)" = "$wanted" ]; then
    echo "schemathesis is installed."
    exit 0
fi
rm -f .installed
"${PYTHON:-python3}" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt

# Written last, so that the file exists only if everything above is installed.
echo "$wanted" >.installed
