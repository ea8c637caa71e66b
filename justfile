# `just` lists the recipes. Their commands also work without just.

default:
    @just --list

# Run the demo: http://127.0.0.1:8080/s/demo/mcp
demo:
    cargo run --release -- serve --demo

# Run the tests listed in the README; above the store, only on SQLite
test:
    cargo test --workspace

# Run the tests above the store on PostgreSQL
test-postgres:
    cargo test --workspace -- --ignored ::postgres

# Check formatting and lints, as in CI
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --test '*' -- -D warnings

# Install the dependencies of the slow suites: conformance suite, MCP clients, agents, browser automation, schemathesis
install:
    cd e2e/conformance && npm ci --no-audit --no-fund
    cd e2e/browser && npm ci --ignore-scripts --no-audit --no-fund
    bash e2e/clients/install.sh
    bash e2e/servers/install.sh
    bash e2e/agents/install.sh
    cd e2e/snippets && npm ci --ignore-scripts --no-audit --no-fund
    bash e2e/api/install.sh

# Run the official conformance suite against the fixtures, also through the gateway, and the product
conformance:
    cargo test --workspace --test conformance

# Run the commands of the program, and compare their output
cli:
    cargo test --workspace --test cli

# Complete walkthroughs with the official clients, with every protocol era they support, with and without sign-in
clients:
    cargo test --workspace --test clients

# Run real agents and frameworks with a scripted model, including interruptions; WAYPOST_TEST_WRITE=1 updates docs/clients.md
agents:
    cargo test --workspace --test agents

# Test the REST API against its OpenAPI document with schemathesis
api:
    cargo test --workspace --test api

# Run the browser tests with Chromium; SCREENSHOTS sets the folder for screenshots
browser:
    cargo test --workspace --test browser

# Test faults: kill -9 under load, power failures, full disks, database outages
faults:
    cargo test --workspace --test faults

# Test toolboxes with a real Docker Engine: that of DOCKER_HOST, by default /var/run/docker.sock
toolbox:
    cargo test --workspace --test toolbox
    cargo test --workspace --test docker

# Start a Docker Engine for tests beside others and print its DOCKER_HOST; `eval "$(just docker)"` sets it
docker:
    @.ci/docker start

# Stop the engine that `just docker` started, and remove its data
docker-stop:
    @.ci/docker stop

# Benchmark the gateway against direct calls and a bare relay, and print the table in benches/README.md
bench-gateway *ARGS:
    cargo build --profile dist -p waypost -p waypost-bench
    target/dist/waypost-bench gateway --json bench-gateway.json {{ARGS}}

# Benchmark Waypost against its references and print the table in benches/README.md
bench *ARGS:
    cargo build --profile dist -p waypost -p waypost-bench
    target/dist/waypost-bench run --json bench.json {{ARGS}}

# Measure toolboxes with the Docker Engine of DOCKER_HOST: deployments, calls, many daemons, memory, leaks
bench-toolbox *ARGS:
    cargo build --profile dist -p waypost -p waypost-bench
    target/dist/waypost-bench toolbox --json bench-toolbox.json {{ARGS}}

# Soak test: ten minutes of legitimate users alongside hostile connections of every kind
soak *ARGS:
    cargo build --profile dist -p waypost -p waypost-bench
    target/dist/waypost-bench soak {{ARGS}}

# Fuzz each target for SECONDS seconds
fuzz SECONDS="30":
    for target in $(cargo fuzz list); do cargo fuzz run -s none $target -- -max_total_time={{SECONDS}} || exit 1; done

# Mutate the rules of `core` and check that its own tests notice; about half an hour on two cores
mutants *ARGS:
    cargo mutants --package waypost-core --output target {{ARGS}}

# Accept changed snapshots
snapshots:
    INSTA_UPDATE=always cargo test --workspace

# Check dependencies and spelling, as in CI; installs the tools
checks:
    bash .ci/checks

# Run everything that must pass before a change is merged
ci:
    bash .ci/run
