# `just` lists these; each is one command that can be typed without just, too.

default:
    @just --list

# Runs the demo: http://127.0.0.1:8080/s/demo/mcp
demo:
    cargo run --release -- serve --demo

# The tests of the README: under a minute on a warm build
test:
    cargo test --workspace

# Formatting and lints, as CI runs them
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --features slow-tests -- -D warnings

# What the slower suites need: the conformance suite, the real MCP clients and agents, what drives a browser
install:
    cd e2e/conformance && npm ci --no-audit --no-fund
    cd e2e/browser && npm ci --ignore-scripts --no-audit --no-fund
    bash e2e/clients/install.sh
    bash e2e/agents/install.sh
    cd e2e/snippets && npm ci --ignore-scripts --no-audit --no-fund
    bash e2e/api/install.sh

# The official conformance suite against the fixtures and against the product
conformance:
    cargo test -p waypost --features slow-tests --test conformance

# The official clients play to the end, in every era that they speak, with and without sign-in
clients:
    cargo test -p waypost --features slow-tests --test clients

# Real agents and frameworks play with a scripted model, are killed and continue; WAYPOST_TEST_WRITE=1 writes docs/clients.md
agents:
    cargo test -p waypost --features slow-tests --test agents

# The REST API by its OpenAPI document, with schemathesis
api:
    cargo test -p waypost --features slow-tests --test api

# People who sign in with Chromium; the screenshots go where SCREENSHOTS says
browser:
    cargo test -p waypost --features slow-tests --test browser

# kill -9 under load, power cuts, full disks, databases that go away
faults:
    cargo test -p waypost --features slow-tests --test faults

# Measures Waypost beside its references and prints the table of benches/README.md
bench *ARGS:
    cargo build --release -p waypost -p waypost-bench
    target/release/waypost-bench run --json bench.json {{ARGS}}

# Ten minutes of legitimate users beside hostile connections of every kind
soak *ARGS:
    cargo build --release -p waypost -p waypost-bench
    target/release/waypost-bench soak {{ARGS}}

# Fuzzes every target for some seconds
fuzz SECONDS="30":
    for target in $(cargo fuzz list); do cargo fuzz run -s none $target -- -max_total_time={{SECONDS}} || exit 1; done

# Accepts changed snapshots
snapshots:
    INSTA_UPDATE=always cargo test --workspace

# Licences, duplicates and sources of the dependencies
deny:
    cargo deny check bans licenses sources

# Everything, as it runs before a change lands
ci:
    bash .ci/run
