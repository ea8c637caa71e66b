#!/bin/sh
# Installs the agents and frameworks that tests/agents runs: npm packages and three Python environments. The frameworks
# need different versions of the same libraries. A second run does nothing.
#
# Needs npm and Python 3.11 or newer with venv ($PYTHON, default python3). Node is installed as an npm package on Linux
# x86-64; elsewhere Node 22.19 or newer must be in PATH.
set -eu
cd "$(dirname "$0")"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install.sh: Python 3.11 or newer is needed; $python is $("$python" --version 2>&1)" >&2
    exit 1
}

wanted=$(cat package.json package-lock.json requirements/*.txt install.sh | cksum)
if [ "$(cat .installed 2>/dev/null)" = "$wanted" ]; then
    echo "The agents are installed."
    exit 0
fi
rm -f .installed

# None of the packages needs its install script: binaries come as optional packages for each platform.
npm ci --ignore-scripts --no-audit --no-fund &
npm=$!

# uv installs hundreds of packages in seconds, and links them from its cache instead of copying.
"$python" -m venv --clear .venv/uv
.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
for name in crewai langchain modern; do
    .venv/uv/bin/uv venv --quiet --clear --python "$python" ".venv/$name"
    .venv/uv/bin/uv pip install --quiet --python ".venv/$name/bin/python" --requirement "requirements/$name.txt"
done
wait "$npm"

# Written last: it says that everything above is installed.
echo "$wanted" >.installed
