#!/bin/sh
# Installs the official MCP clients that play the demo (tests/clients). A second run does nothing.
#
# Needs npm and Python 3.11 or newer with venv ($PYTHON, default python3). Node is installed as an npm package on Linux
# x86-64; elsewhere the Inspector needs Node 22.19 or newer in PATH.
set -eu
cd "$(dirname "$0")"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install.sh: Python 3.11 or newer is needed; $python is $("$python" --version 2>&1)" >&2
    exit 1
}

wanted=$(cat package.json package-lock.json requirements.txt install.sh | cksum)
if [ "$(cat .installed 2>/dev/null)" = "$wanted" ]; then
    echo "The MCP clients are installed."
    exit 0
fi
rm -f .installed

# None of the packages needs an install script: they are published ready to run.
npm ci --ignore-scripts --no-audit --no-fund
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt

# Written last, so that the file exists only if everything above is installed.
echo "$wanted" >.installed
